"""Token-level caching of the mixture, the unit of reuse that MoECa argues against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ros_vla_accel.moeca.session import Step, signature


@dataclass
class HeldTokens:
    """Per token: mixture output, the input it was computed from (N, D), steps since then (N,)."""

    known: tuple[Any, ...]
    outputs: Tensor
    inputs: Tensor
    age: Tensor

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.outputs, self.inputs, self.age))


class TokenCache:
    """Computes the mixture for a ``ratio`` of the tokens, after ToCa (arXiv:2410.05317)."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    def mixture(self, key: Any, step: Step, original: Callable[..., Tensor], x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        held = step.state.get(key)
        step.counts.paths += 1
        if step.full or held is None or held.known != signature(x):
            step.counts.paths_computed += 1
            out = original(x)
            age = torch.zeros(len(rows), device=x.device)
            outputs = out.reshape(rows.shape).clone()
            step.state[key] = HeldTokens(signature(x), outputs, rows.clone(), age)
            return out
        held.age += 1
        count = round(self.ratio * len(rows))
        if count:
            score = (rows - held.inputs).norm(dim=-1).float() * held.age
            chosen = score.topk(count).indices
            held.outputs[chosen] = original(rows[chosen])
            held.inputs[chosen] = rows[chosen]
            held.age[chosen] = 0
        # A copy: the caller may write into what it is given.
        return held.outputs.clone().view_as(x)
