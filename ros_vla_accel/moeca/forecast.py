"""Outputs that are held or drawn on from step to step: FORA, TaylorSeer, reused attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ros_vla_accel.moeca.session import Step, signature


@dataclass(frozen=True)
class Forecast:
    """A value and its backward differences per step, computed at step ``index``.

    differences: [value, first, second ...]; each needs one more computed value.
    """

    index: int
    differences: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        return sum(d.numel() * d.element_size() for d in self.differences)

    def follow(self, index: int, value: Tensor, order: int) -> Forecast:
        """With a newly computed value (TaylorSeer, arXiv:2503.06923, eq. 5)."""
        found = [value]
        for old in self.differences[:order]:
            found.append((found[-1] - old) / (index - self.index))
        return Forecast(index, tuple(found))

    def at(self, index: int) -> Tensor:
        """Taylor series at a later step; the value itself without differences."""
        value, *rest = self.differences
        distance = index - self.index
        for order, difference in enumerate(rest, start=1):
            value = value.add(difference, alpha=distance**order / math.factorial(order))
        return value


def run_held(
    key: Any,
    order: int,
    step: Step,
    original: Callable[..., Tensor],
    x: Tensor,
    *args: Any,
    full: bool | None = None,
    **kwargs: Any,
) -> Tensor:
    """One path: computed on full steps, or forecast to ``order``. full: instead of the step's."""
    held, shape = step.state.get(key), (key, "signature")
    known = step.state.get(shape) == signature(x)
    step.counts.paths += 1
    if known and held is not None and not (step.full if full is None else full):
        return held.at(step.index)
    step.counts.paths_computed += 1
    value = original(x, *args, **kwargs)
    if known and held is not None:
        step.state[key] = held.follow(step.index, value, order)
    else:
        step.state[key], step.state[shape] = Forecast(step.index, (value,)), signature(x)
    return value
