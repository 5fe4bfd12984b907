"""Backbone stage: image tokens, joint positions and words to the context of the action head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros_vla_accel.policies.attention import Attention
from ros_vla_accel.policies.config import ModelConfig


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer: (B, M, D) -> (B, M, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in "12")
        self.attention = Attention(width, config.heads)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norms[0](x)
        x = x + self.attention(rows, self.attention.remember(rows))
        return x + self.down(functional.gelu(self.up(self.norms[1](x)), approximate="tanh"))


class Backbone(nn.Module):
    """Transformer encoder over [summary, state, image tokens, words].

    Nothing is masked: padding is a word with an embedding of its own, so that the context has one
    shape for every instruction.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        image_tokens = config.cameras * ((config.image_size // 16) ** 2 + 1)
        self.summary = nn.Parameter(0.02 * torch.randn(1, width))
        self.state = nn.Sequential(
            nn.Linear(config.state_features, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.words = nn.Embedding(config.vocabulary, width)
        nn.init.normal_(self.words.weight, std=0.02)
        self.position = nn.Parameter(0.02 * torch.randn(2 + image_tokens + config.words, width))
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.backbone_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, vision: Tensor, state: Tensor, words: Tensor) -> Tensor:
        """vision: (B, N, D); state: (B, S) features; words: (B, W) int64 -> (B, M, D).

        The first token is the summary of the whole observation.
        """
        tokens = torch.cat(
            [
                self.summary.expand(len(vision), 1, -1).to(vision.dtype),
                self.state(state.to(vision.dtype)).unsqueeze(1),
                vision,
                self.words(words),
            ],
            dim=1,
        )
        tokens = tokens + self.position
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens)
