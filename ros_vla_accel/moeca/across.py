"""Expert branches of the inference before, reused at the same denoising step.

MoECa reuses within one inference. Consecutive inferences of a robot see nearly the same scene,
too; but a branch is a function of its input row alone, so it is the input that must have stayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Remembered:
    """Branches of one layer at one step, in the order of ``HeldBranches``.

    routing: (N, k). outputs: (M, D) pre-gate. inputs: (M, D), the rows that they were computed
    from, in this inference or an earlier one, so that small moves cannot add up unseen.
    """

    known: tuple[Any, ...]
    routing: Tensor
    outputs: Tensor
    inputs: Tensor

    @property
    def bytes(self) -> int:
        tensors = self.routing, self.outputs, self.inputs
        return sum(t.numel() * t.element_size() for t in tensors)

    def match(self, routing: Tensor, inputs: Tensor, limit: float) -> tuple[Tensor, Tensor]:
        """Where each of today's branches was, and whether it may be reused: (M,) and (M,) bool.

        routing: (N, k), inputs: (M, D) of today. It may where the token went to that expert then,
        and its input moved by no more than ``limit`` of its length.
        """
        tokens, k = routing.shape
        same = routing.unsqueeze(2) == self.routing.unsqueeze(1)
        first = torch.arange(tokens, device=routing.device).unsqueeze(1) * k
        routed = (first + same.int().argmax(-1)).flatten()
        shared = torch.arange(tokens * k, len(inputs), device=routing.device)
        source = torch.cat([routed, shared])
        there = torch.cat([same.any(-1).flatten(), torch.ones_like(shared, dtype=torch.bool)])
        old = self.inputs[source]
        near = (inputs - old).norm(dim=1) <= limit * old.norm(dim=1)
        return source, there & near
