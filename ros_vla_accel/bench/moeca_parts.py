"""Where the time of a denoising step goes: parts of a head and of its caches, timed apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np

from ros_vla_accel.bench.moeca_cases import Case
from ros_vla_accel.bench.moeca_contenders import Contender
from ros_vla_accel.bench.moeca_measure import Bench
from ros_vla_accel.moeca import branches, forecast, held_branches, plan, tokens
from ros_vla_accel.policies import head, moe

PLACES: list[tuple[Any, str, str]] = [
    (moe.MixtureOfExperts, "route", "router"),
    (moe.Expert, "forward", "experts"),
    (moe.MixtureOfExperts, "combine", "combine"),
    (moe.MixtureOfExperts, "branches", "gather and scatter"),
    (head.DiTBlock, "attend", "attention"),
    (head.DiTBlock, "look", "attention"),
    (forecast.Forecast, "at", "forecast"),
    (forecast.Forecast, "follow", "forecast"),
    (plan.Plan, "start", "scoring"),
    (branches.BranchCache, "_compute_some", "scoring"),
    (branches, "choose_rows", "scoring"),
    (held_branches.HeldBranches, "learn", "scoring"),
    *((branches.BranchCache, f"_{n}", "gather and scatter") for n in ("start", "compute_all")),
    (branches.BranchCache, "_compute_new", "gather and scatter"),
    *((branches, n, "gather and scatter") for n in ("_by_expert", "_stalest", "_run")),
    *(
        (held_branches.HeldBranches, n, "gather and scatter")
        for n in ("follow", "replace", "store", "start")
    ),
    (tokens.TokenCache, "mixture", "scoring"),
]
"""Owner, name of its function, part that its own time belongs to, calls within it excluded."""


class Stopwatch:
    """Own time of nested calls by part; whatever is in none is ``rest``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = ["rest"]
        self._since = time.perf_counter()

    def _turn(self) -> None:
        now = time.perf_counter()
        part = self._stack[-1]
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now

    def start(self) -> None:
        self.seconds, self._since = {}, time.perf_counter()

    def stop(self) -> dict[str, float]:
        self._turn()
        return self.seconds

    def wrap(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            self._stack.append(part)
            try:
                return call(*args, **kwargs)
            finally:
                self._turn()
                self._stack.pop()

        return timed


@contextmanager
def timed_parts() -> Iterator[Stopwatch]:
    """Within it, the functions in ``PLACES`` report to the stopwatch."""
    watch = Stopwatch()
    originals = [(owner, name, vars(owner)[name]) for owner, name, _ in PLACES]
    for owner, name, part in PLACES:
        setattr(owner, name, watch.wrap(vars(owner)[name], part))
    try:
        yield watch
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def parts(
    bench: Bench, entries: Sequence[Contender], made: Sequence[Case], turns: int
) -> list[dict[str, Any]]:
    """Per contender, medians over turns of the milliseconds of each part, per step."""
    taken: list[list[dict[str, float]]] = [[] for _ in entries]
    with timed_parts() as watch:
        for turn in range(turns + 1):
            for number, contender in enumerate(entries):
                bench.enable(contender)
                watch.start()
                bench.infer(contender, made[turn % len(made)])
                if turn:  # The first warms up.
                    taken[number].append(dict(watch.stop()))
                bench.disable(contender)
    rows = []
    for contender, seen in zip(entries, taken, strict=True):
        names = sorted({name for one in seen for name in one})
        rows.append(
            {
                "label": f"{contender.family}, {contender.setting}",
                "parts_ms": {
                    name: 1e3
                    * float(np.median([one.get(name, 0.0) for one in seen]))
                    / contender.steps
                    for name in names
                },
            }
        )
    return rows
