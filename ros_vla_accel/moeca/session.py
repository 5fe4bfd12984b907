"""The state of one inference: what it cached, which step it is at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ros_vla_accel.moeca.across import Remembered

if TYPE_CHECKING:
    from ros_vla_accel.moeca.cache import HeadCache


@dataclass
class Counts:
    """What happened so far. Branches are counted in rows of experts, routed or shared; paths are
    attention paths and, for methods that hold them whole, mixtures and blocks."""

    inferences: int = 0
    steps: int = 0
    full_steps: int = 0
    branches: int = 0
    branches_computed: int = 0
    experts: int = 0
    experts_computed: int = 0
    paths: int = 0
    paths_computed: int = 0
    afresh: int = 0

    def add(self, other: Counts) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Step:
    """One evaluation of the head. state: of the session. full: everything is computed. before:
    what the inference before remembered."""

    index: int
    steps: int
    full: bool
    state: dict[Any, Any]
    before: dict[Any, Any] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


def signature(x: torch.Tensor) -> tuple[Any, ...]:
    """What must not change while cached tensors are used."""
    return tuple(x.shape), x.dtype, x.device


class Session:
    """Cached state of one inference; from ``begin``. Not for two threads at a time.

    steps: evaluations of the head. bytes: memory of the cached tensors after the last full step.

    Each stream of a classifier-free guidance pair that calls the head on its own needs a session
    of its own; both halves in one batch share one, as their tokens are different rows.
    """

    def __init__(
        self, cache: HeadCache | None, steps: int, previous: Session | None = None
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps {steps} must be at least 1: evaluations of the head")
        self._cache, self.steps = cache, steps
        self._state: dict[Any, Any] = {}
        self._previous = previous
        self._last = -1
        self.bytes = 0

    def weigh(self) -> None:
        """Counts what the cached tensors take into ``bytes``."""
        values = list(self._state.values())
        self.bytes = sum(held.bytes for held in values if hasattr(held, "bytes"))

    def clear(self) -> None:
        """Forgets all tensors; the next step is full. Safe at any time."""
        self._state, self._previous, self.bytes = {}, None, 0

    def _close(self) -> None:
        """After the last step: only what the next inference may ask for is kept."""
        self._previous = None
        self._state = {k: held for k, held in self._state.items() if isinstance(held, Remembered)}

    @contextmanager
    def step(self, index: int) -> Iterator[None]:
        """Around evaluation ``index`` of the head, 0 .. steps - 1, in rising order.

        Raises ValueError for an index that was passed already, and RuntimeError where gradients
        are recorded. An error inside forgets the state: half a step is no state to go on from.
        """
        cache = self._cache
        if cache is None:
            yield
            return
        if not self._last < index < self.steps:
            raise ValueError(
                f"step {index} cannot follow step {self._last} of {self.steps}; begin(head, steps)"
                " a session for every inference, and for each stream of a guidance pair"
            )
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a cached head has no backward pass; run it under torch.inference_mode(), "
                "or disable_cache(head) before training"
            )
        full = not self._state or cache.config.is_full(index, self.steps)
        before = self._previous._state if self._previous is not None else {}
        step = Step(index, self.steps, full, self._state, before)
        self._last = index
        outer = cache.enter(step)
        try:
            yield
        except BaseException:
            self.clear()
            raise
        finally:
            cache.leave(outer)
        step.counts.steps, step.counts.full_steps = 1, int(full)
        if full:
            self.weigh()  # Between full steps, state is written in place.
        cache.account(self, step.counts)
        if index == self.steps - 1:
            self._close()
            self.weigh()
