"""First-block residual threshold: one block tells whether the others have anything to add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ros_vla_accel.moeca.session import Step, signature


@dataclass
class HeldResidual:
    """Residuals of the first block and of all others at the last full step; ``entry``, what the
    first block gave at this step; ``skip``, whether the others are skipped at this step."""

    known: tuple[Any, ...]
    first: Tensor
    entry: Tensor
    rest: Tensor | None = None
    skip: bool = False

    @property
    def bytes(self) -> int:
        held = [t for t in (self.first, self.entry, self.rest) if t is not None]
        return sum(t.numel() * t.element_size() for t in held)


class FirstBlock:
    """FBCache over blocks 0 .. count - 1. ValueError for fewer than two."""

    def __init__(self, threshold: float, count: int) -> None:
        if count < 2:
            raise ValueError(f"a head of {count} blocks has none to skip; use another method")
        self.threshold, self.last = threshold, count - 1

    def block(
        self,
        number: int,
        step: Step,
        original: Callable[..., Tensor],
        x: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        step.counts.paths += 1
        held: HeldResidual | None = step.state.get("first block")
        if number and held is not None and held.skip:
            return x if number < self.last else held.entry + held.rest
        step.counts.paths_computed += 1
        out = original(x, *args, **kwargs)
        if not number:
            self._decide(step, held, x, out)
        elif number == self.last and held is not None:
            held.rest = out - held.entry
        return out

    def _decide(self, step: Step, held: HeldResidual | None, x: Tensor, out: Tensor) -> None:
        residual = out - x
        if not step.full and held is not None and held.rest is not None:
            near = held.known == signature(x)
            if near:
                drift = (residual - held.first).abs().mean()
                near = bool(drift <= self.threshold * held.first.abs().mean())
            if near:
                held.entry, held.skip = out, True
                return
        step.state["first block"] = HeldResidual(signature(x), residual, out)
