"""The reference VLA: three stages that can run on different machines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros_vla_accel.policies.backbone import Backbone
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.head import ActionHead
from ros_vla_accel.policies.objectives import sample
from ros_vla_accel.policies.vision import VisionEncoder

STAGES = ("vision", "backbone", "head")


class ReferenceVLA(nn.Module):
    """Stages ``vision``, ``backbone`` and ``head`` over normalized actions.

    Everything between the stages is one tensor, so that any cut is one message: vision tokens
    (B, N, D), then the context (B, M, D), its first token the summary.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionEncoder(config)
        self.backbone = Backbone(config)
        self.head = ActionHead(config)

    def act(
        self,
        context: Tensor,
        noise: Tensor,
        steps: int,
        bounds: tuple[Tensor, Tensor],
        solver: str | None = None,
        guess: Tensor | None = None,
        start: float = 0.0,
    ) -> Tensor:
        """Head stage: context (B, M, D) and noise (B, K, H, A) -> chunks (B, K, H, A); the rest
        as ``objectives.sample``."""
        objective = self.config.objective
        return sample(objective, self.head, context, noise, steps, bounds, solver, guess, start)

    def balance(self) -> Tensor:
        """Mean load-balance loss of the mixture layers in the last training pass."""
        losses = [block.moe.balance for block in self.head.blocks]
        return torch.stack([loss for loss in losses if loss is not None]).mean()
