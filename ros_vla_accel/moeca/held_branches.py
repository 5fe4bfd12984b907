"""The cached branches of one layer, for one inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_FLOOR = 1e-12


@dataclass
class HeldBranches:
    """M branches of N tokens: token by token the k routed ones, then S shared experts' over all.

    known: shape, type and device that the state is for. routing: experts (N, k) when last looked
    at, as lists, which are compared faster than tensors. experts, token: (M,), what each branch
    belongs to. outputs: (M, D) pre-gate. inputs: (M, D), the tokens that they were computed from.
    at: (M,), steps of their computation. slopes: (M, D), change of output per step, or None.
    rates: (E + S,), per expert change of output over change of input.
    """

    known: tuple[Any, ...]
    routing: list[list[int]]
    experts: Tensor
    token: Tensor
    outputs: Tensor
    inputs: Tensor
    at: Tensor
    slopes: Tensor | None
    rates: Tensor

    @property
    def bytes(self) -> int:
        tensors = (t for t in vars(self).values() if isinstance(t, Tensor))
        return sum(t.numel() * t.element_size() for t in tensors)

    def follow(self, experts: Tensor) -> list[int]:
        """Brings the branches into the order of a step's routing (N, k).

        Returns those that are newly routed, by expert; they hold nothing of use.
        """
        routing = experts.tolist()
        if routing == self.routing:
            return []
        k = experts.shape[1]
        to: list[int] = []
        source: list[int] = []
        new: list[tuple[int, int]] = []
        for token, (now, before) in enumerate(zip(routing, self.routing, strict=True)):
            if now == before:
                continue
            for place, expert in enumerate(now):
                if expert not in before:
                    new.append((expert, token * k + place))
                elif before[place] != expert:
                    to.append(token * k + place)
                    source.append(token * k + before.index(expert))
        if to:
            moved = torch.tensor([to, source], device=experts.device)
            for held in (self.outputs, self.inputs, self.at, self.slopes):
                if held is not None:
                    held[moved[0]] = held[moved[1]]
        self.routing = routing
        self.experts[: experts.numel()] = experts.reshape(-1)
        return [branch for _, branch in sorted(new)]

    def replace(self, outputs: Tensor, inputs: Tensor | None, index: int, new: list[int]) -> None:
        """Takes all branches at once. inputs: None where nobody will ask for the drift."""
        if self.slopes is not None:
            age = (index - self.at).clamp(min=1).unsqueeze(1)
            self.slopes = (outputs - self.outputs).div_(age)
            if new:
                self.slopes[torch.tensor(new, device=outputs.device)] = 0.0
        self.outputs = outputs
        if inputs is not None:
            self.inputs = inputs
        self.at.fill_(float(index))

    def store(
        self, order: Tensor, outputs: Tensor, inputs: Tensor, index: int, new: Tensor | None
    ) -> None:
        """Takes what was computed for branches ``order`` at step ``index``.

        new: mask over ``order`` of branches whose earlier output is not their own.
        """
        if self.slopes is not None:
            age = (index - self.at[order]).clamp(min=1).unsqueeze(1)
            slopes = (outputs - self.outputs[order]) / age.to(outputs.dtype)
            if new is not None:
                slopes = slopes.masked_fill(new.unsqueeze(1), 0.0)
            self.slopes.index_copy_(0, order, slopes)
        self.outputs.index_copy_(0, order, outputs)
        self.inputs.index_copy_(0, order, inputs)
        self.at[order] = float(index)

    def start(self, order: Tensor, outputs: Tensor, inputs: Tensor, index: int) -> None:
        """Takes newly routed branches ``order``, of which nothing was known."""
        if self.slopes is not None:
            self.slopes.index_fill_(0, order, 0.0)
        self.outputs.index_copy_(0, order, outputs)
        self.inputs.index_copy_(0, order, inputs)
        self.at.index_fill_(0, order, float(index))

    def learn(self, outputs: Tensor, drift: Tensor, new: list[int]) -> None:
        """Change rate per expert, from all branches' outputs (M, D) before they are replaced.

        drift: (M,), how far their inputs moved. Half of a rate is what it was.
        """
        change = (outputs - self.outputs).norm(dim=1).float()
        if new:
            fresh = torch.tensor(new, device=change.device)
            change, drift = change.index_fill(0, fresh, 0.0), drift.index_fill(0, fresh, 0.0)
        sums = torch.zeros(len(self.rates), 2, device=drift.device)
        sums.index_add_(0, self.experts, torch.stack([change, drift], dim=1))
        changes, drifts = sums.unbind(1)
        seen = changes / drifts.clamp(min=_FLOOR)
        self.rates = torch.where(drifts > _FLOOR, (self.rates + seen) / 2, self.rates)
