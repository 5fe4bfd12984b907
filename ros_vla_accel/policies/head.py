"""DiT-MoE action head: denoises chunks of actions under the context of one observation.

Blocks are modulated by adaLN-Zero (DiT, arXiv:2212.09748): self-attention over the rows of the
chunk, cross-attention to the context, then a mixture of experts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros_vla_accel.policies.attention import Attention, Memory
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.head_adapter import ReferenceHeadAdapter
from ros_vla_accel.policies.moe import MixtureOfExperts


@dataclass(frozen=True)
class Conditioning:
    """What all denoising steps of one inference share, computed once.

    memory: per block. modulations: per block (B, S, 9 D), and the last for the output layer
    (B, S, 2 D); S is one entry per denoising step, or per sample in training.
    """

    memory: list[Memory]
    modulations: list[Tensor]

    def step(self, index: int) -> Conditioning:
        """The conditioning of one denoising step, for all samples of an observation."""
        return Conditioning(self.memory, [m[:, index : index + 1] for m in self.modulations])


def timestep_embedding(time: Tensor, width: int) -> Tensor:
    """Sinusoids (…, width) of a time in [0, 1]."""
    half = width // 2
    scale = torch.exp(-math.log(1e4) * torch.arange(half, device=time.device) / half)
    angles = 1000.0 * time.float().unsqueeze(-1) * scale
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


class DiTBlock(nn.Module):
    """One block over x (B, K, H, D): K samples of H rows for each of B observations."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in "123")
        self.attention = Attention(width, config.heads)
        self.cross_attention = Attention(width, config.heads)
        self.moe = MixtureOfExperts(
            width, config.expert_hidden, config.experts, config.experts_per_token
        )
        self.modulation = nn.Linear(width, 9 * width)

    def attend(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Self-attention path before its gate; rows attend within their own sample."""
        rows = modulate(self.norms[0](x), shift, scale).flatten(0, 1)
        return self.attention(rows, self.attention.remember(rows)).view_as(x)

    def look(self, x: Tensor, shift: Tensor, scale: Tensor, memory: Memory) -> Tensor:
        """Cross-attention path before its gate; all samples share one memory."""
        rows = modulate(self.norms[1](x), shift, scale).flatten(1, 2)
        return self.cross_attention(rows, memory).view_as(x)

    def mix(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """MoE path before its gate."""
        rows = modulate(self.norms[2](x), shift, scale).flatten(0, 2)
        return self.moe(rows).view_as(x)

    def forward(self, x: Tensor, modulation: Tensor, memory: Memory) -> Tensor:
        """modulation: (B, K or 1, 9 D), see ``Conditioning``."""
        shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, gate3 = modulation.unsqueeze(
            2
        ).chunk(9, dim=-1)
        x = x + gate1 * self.attend(x, shift1, scale1)
        x = x + gate2 * self.look(x, shift2, scale2, memory)
        return x + gate3 * self.mix(x, shift3, scale3)


class ActionHead(nn.Module):
    """Noisy chunks, time and context -> velocity (flow) or noise (ddpm), per action entry."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.width = width
        self.embed = nn.Linear(config.action_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(config.horizon, width))
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.pooled = nn.Linear(width, width)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, config.action_dim)
        for layer in self.zero_layers():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def zero_layers(self) -> list[nn.Linear]:
        """The layers that start at zero (adaLN-Zero): before training, every block is idle."""
        return [self.modulation, self.out, *(block.modulation for block in self.blocks)]

    def cache_adapter(self) -> ReferenceHeadAdapter:
        """Names its parts for ``moeca.enable_cache``."""
        return ReferenceHeadAdapter(self.blocks)

    def condition(self, context: Tensor, time: Tensor) -> Conditioning:
        """context: (B, N, D), its first token the summary. time: (B, S) in [0, 1]."""
        code = timestep_embedding(time, self.width).to(context.dtype)
        code = functional.silu(self.time(code) + self.pooled(context[:, :1]))
        layers = [block.modulation for block in self.blocks] + [self.modulation]
        return Conditioning(
            [block.cross_attention.remember(context) for block in self.blocks],
            [layer(code) for layer in layers],
        )

    def forward(self, actions: Tensor, conditioning: Conditioning) -> Tensor:
        """actions: (B, K, H, A), K samples per observation -> the same shape."""
        x = self.embed(actions) + self.position
        *modulations, last = conditioning.modulations
        for block, modulation, memory in zip(
            self.blocks, modulations, conditioning.memory, strict=True
        ):
            x = block(x, modulation, memory)
        shift, scale = last.unsqueeze(2).chunk(2, dim=-1)
        return self.out(modulate(self.norm(x), shift, scale))
