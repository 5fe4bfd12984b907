"""Vision stage: each camera's image to grid tokens and one token of keypoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros_vla_accel.policies.config import ModelConfig


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


class ImageEncoder(nn.Module):
    """(B, 3, S, S) in [0, 1] -> (B, (S / 16)^2 + 1, D).

    The last token holds the expected position of every channel's activation (spatial softmax,
    arXiv:1504.00702): sub-pixel positions that a small grid would lose.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 32, 2), _conv(32, 64, 2), _conv(64, 64, 1))
        self.keypoints = nn.Conv2d(64, 32, 1)
        self.body = nn.Sequential(_conv(64, 128, 2), _conv(128, 128, 1))
        self.patch = nn.Conv2d(128, config.width, 2, 2)
        self.where = nn.Linear(64, config.width)
        grid = config.image_size // 4
        self.register_buffer("axis", torch.linspace(-1, 1, grid), persistent=False)
        self.position = nn.Parameter(
            0.02 * torch.randn((config.image_size // 16) ** 2, config.width)
        )

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(2 * image - 1)
        heat = self.keypoints(features).float().flatten(2).softmax(-1)
        heat = heat.unflatten(-1, (len(self.axis), len(self.axis)))
        axis = self.axis.float()
        column, row = heat.sum(2) @ axis, heat.sum(3) @ axis
        where = self.where(torch.cat([column, row], dim=-1).to(features.dtype))
        grid = self.patch(self.body(features)).flatten(2).transpose(1, 2) + self.position
        return torch.cat([grid, where.unsqueeze(1)], dim=1)


class VisionEncoder(nn.Module):
    """(B, C, 3, S, S) uint8 RGB of C cameras -> (B, C * tokens, D); one encoder per camera."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(ImageEncoder(config) for _ in range(config.cameras))

    def forward(self, images: Tensor) -> Tensor:
        scaled = images.to(self.encoders[0].position.dtype) / 255
        return torch.cat([e(scaled[:, i]) for i, e in enumerate(self.encoders)], dim=1)
