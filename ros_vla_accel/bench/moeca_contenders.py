"""What ``bench moeca`` compares, at three or more settings each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ros_vla_accel.moeca import (
    BranchCacheConfig,
    CacheConfig,
    FirstBlockConfig,
    ForaConfig,
    TaylorConfig,
    TokenCacheConfig,
)
from ros_vla_accel.policies.objectives import STEP_RANGES

FEWER = (1, 2, 3, 4, 5, 6, 8, 10, 16, 20, 25, 30, 50)
WARM_STARTS = (0.3, 0.5, 0.7)
EDGES: dict[str, dict[str, Any]] = {
    "": {"full_first": 1, "full_last": False},
    ", last full": {"full_first": 1, "full_last": True},
    ", edges full": {"full_first": 2, "full_last": True},
}
"""Which steps are full besides those of the interval. A full last step belongs to MoECa, and a
second one at the start is worth as much to 16 steps of DDIM: all are compared with them."""
BRIEF_EDGES = {"flow": ("", ", last full"), "ddpm": ("", ", edges full")}
"""Of the brief list: what a second full step at the start does for diffusion, a flow gets by the
last alone, which leaves it faster."""


@dataclass(frozen=True)
class Sampler:
    """How a head denoises without any cache."""

    objective: str
    solver: str
    steps: int

    def __str__(self) -> str:
        return f"{self.objective}, {self.solver}, {self.steps} steps"


SAMPLERS = {
    "flow_10": Sampler("flow", "euler", 10),
    "flow_50": Sampler("flow", "euler", 50),
    "ddim_16": Sampler("ddpm", "ddim", 16),
    "ddim_50": Sampler("ddpm", "ddim", 50),
    "ddpm_100": Sampler("ddpm", "ancestral", 100),
}


@dataclass(frozen=True)
class Contender:
    """family: the method; setting: what tells it from others of the family. solver, steps: of its
    sampler. cache: None without one. warm_start: share of the steps that are skipped.

    Of MoECa there are two: ``moeca`` reuses branches, each step's own routing deciding which, and
    ``moeca, lazy`` does not even route where the budget does not reach (routing "with_budget").
    Without a budget that is TaylorSeer (held: FORA), and the library runs it as such.
    """

    family: str
    setting: str
    solver: str
    steps: int
    cache: CacheConfig | None = None
    warm_start: float = 0.0

    @property
    def computation(self) -> Contender:
        """What runs, without its name: the same for two that would differ by noise alone."""
        cache = self.cache
        if (
            isinstance(cache, BranchCacheConfig)
            and cache.whole_paths
            and cache.attention != "always"
        ):
            shared: dict[str, Any] = {
                "interval": cache.interval,
                "full_first": cache.full_first,
                "full_last": cache.full_last,
            }
            cache = (
                TaylorConfig(order=cache.order, **shared) if cache.order else ForaConfig(**shared)
            )
        return replace(self, family="", setting="", cache=cache)


def contenders(sampler: Sampler, brief: bool = False) -> list[Contender]:
    """All contenders against the plain ``sampler``, which is the first. brief: fewer settings of a
    method, for batches, where an inference takes long."""
    steps, solver = sampler.steps, sampler.solver
    found = [Contender("none", f"{steps} steps", solver, steps)]
    found += _uncached(sampler, brief)
    for n in _intervals(steps, brief):
        for edges in BRIEF_EDGES[sampler.objective] if brief else EDGES:
            if edges == ", last full" and (steps - 1) % n == 0:
                continue  # It is full anyway.
            for family, setting, cache in _cached(n, edges):
                found.append(Contender(family, setting, solver, steps, cache))
    for family, setting, cache in _further(middle_interval(steps), steps, brief):
        found.append(Contender(family, setting, solver, steps, cache))
    if not brief:
        found += [
            Contender("warm start", f"{share:g} skipped", solver, steps, None, share)
            for share in WARM_STARTS
        ]
        found += [
            Contender(
                "moeca, lazy + fewer steps",
                f"{n} steps, every {every}, budget 0",
                solver,
                n,
                _lazy(every, 0.0),
            )
            for n, every in {10: ((6, 2), (6, 3), (5, 3)), 16: ((10, 2), (8, 2), (8, 3))}.get(
                steps, ((25, 3), (25, 5), (16, 4))
            )
        ]
    return found


def _intervals(steps: int, brief: bool = False) -> tuple[int, ...]:
    if steps <= 16:
        return (2, 3, 5)
    if steps <= 50:
        return (3, 8) if brief else (2, 3, 5, 8)
    return (2, 5, 16) if brief else (2, 3, 5, 8, 16)


def middle_interval(steps: int) -> int:
    """At which alternatives within a method are compared."""
    intervals = _intervals(steps)
    return intervals[len(intervals) // 2]


def _uncached(sampler: Sampler, brief: bool) -> Iterator[Contender]:
    """Fewer steps of the same solver, and better ones at fewer steps."""
    fewest = STEP_RANGES[sampler.objective][0]
    counts = [n for n in FEWER if fewest <= n <= 0.8 * sampler.steps]
    counts = counts[:: max(1, len(counts) // 3)] if brief else counts
    for n in counts:
        yield Contender("fewer steps", f"{n} steps", sampler.solver, n)
    if sampler.objective == "flow":
        # Two evaluations a step: at half the steps, as much work.
        for solver in ("midpoint", "heun"):
            for n in (1, 2, 4) if brief else (1, 2, 3, 4, 5, 8, 10):
                if 2 * n <= 0.8 * sampler.steps:
                    yield Contender(solver, f"{n} steps", solver, n)
        return
    for solver, name in (("ddim", "ddim"), ("dpmpp_2m", "dpm++ 2m")):
        for n in counts if solver != sampler.solver else ():
            yield Contender(name, f"{n} steps", solver, n)


def _lazy(interval: int, budget: float, edges: str = "") -> BranchCacheConfig:
    return BranchCacheConfig(
        interval=interval,
        budget=budget,
        routing="with_budget",
        forecast_order=1 if budget else 2,
        **EDGES[edges],
    )


def _cached(n: int, edges: str) -> Iterator[tuple[str, str, CacheConfig]]:
    """Family, setting and configuration of what is full every ``n`` steps and at ``edges``."""
    full = EDGES[edges]
    yield "fora", f"every {n}{edges}", ForaConfig(interval=n, **full)
    for order in (1, 2):
        yield f"taylor {order}", f"every {n}{edges}", TaylorConfig(interval=n, order=order, **full)
    tokens = TokenCacheConfig(interval=n, ratio=0.25, **full)
    yield "tokens", f"every {n}, 25 %{edges}", tokens
    for budget in (0.0, 0.25):
        cache = BranchCacheConfig(interval=n, budget=budget, **full)
        yield "moeca", f"every {n}, budget {budget:g}{edges}", cache
        lazy = _lazy(n, budget, edges)
        yield "moeca, lazy", f"every {n}, budget {budget:g}{edges}", lazy
        # Without a forecast: new noise at each step leaves nothing to draw on.
        held = replace(lazy, forecast_order=1, forecast=False)
        yield "moeca, lazy", f"every {n}, budget {budget:g}, held{edges}", held
    yield (
        "moeca",
        f"every {n}, budget 0, held{edges}",
        BranchCacheConfig(interval=n, budget=0.0, forecast=False, **full),
    )
    # A tenth is enough where values are held: under new noise, a quarter is hardly nearer.
    tenth = replace(_lazy(n, 0.1, edges), forecast=False)
    yield "moeca, lazy", f"every {n}, budget 0.1, held{edges}", tenth
    # A second difference costs a little and, with a full last step, gains little.
    first = replace(_lazy(n, 0.0, edges), forecast_order=1)
    yield "moeca, lazy", f"every {n}, budget 0, order 1{edges}", first


def _further(middle: int, steps: int, brief: bool) -> Iterator[tuple[str, str, CacheConfig]]:
    """Alternatives within the methods, at one interval."""
    for threshold in (0.1, 0.2, 0.4):
        cache = FirstBlockConfig(threshold=threshold, interval=steps)
        yield "first block", f"threshold {threshold:g}", cache
    if brief:
        return
    yield "tokens", f"every {middle}, 50 %", TokenCacheConfig(interval=middle, ratio=0.5)
    yield (
        "moeca",
        f"every {middle}, budget 0.25, held",
        BranchCacheConfig(interval=middle, budget=0.25, forecast=False, full_last=False),
    )
    for attention in ("always", "full_steps"):
        yield (
            "moeca",
            f"every {middle}, budget 0.25, attention {attention}",
            BranchCacheConfig(interval=middle, budget=0.25, attention=attention, full_last=False),
        )
