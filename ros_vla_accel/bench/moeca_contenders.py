"""What ``bench moeca`` compares, at three or more settings each."""

from __future__ import annotations

from dataclasses import dataclass

from ros_vla_accel.moeca import (
    BranchCacheConfig,
    CacheConfig,
    FirstBlockConfig,
    ForaConfig,
    TaylorConfig,
    TokenCacheConfig,
)
from ros_vla_accel.policies.objectives import STEP_RANGES


@dataclass(frozen=True)
class Contender:
    """family: the method; setting: what tells it from others of the family. steps: of the
    sampler. solver, cache: None for the plain ones."""

    family: str
    setting: str
    steps: int
    solver: str | None = None
    cache: CacheConfig | None = None


def contenders(objective: str, steps: int) -> list[Contender]:
    """All contenders against the plain sampler of ``steps``, which is the first."""
    fewest = STEP_RANGES[objective][0]
    fewer = [n for n in (2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30) if fewest <= n <= 0.8 * steps]
    found = [Contender("none", f"{steps} steps", steps)]
    found += [Contender("fewer steps", f"{n} steps", n) for n in fewer]
    if objective == "flow":
        # Two evaluations a step: at half the steps, as much work.
        found += [
            Contender(solver, f"{n} steps", n, solver)
            for solver in ("midpoint", "heun")
            for n in (1, 2, 3, 4, 5, 8, 10)
            if 2 * n <= 0.8 * steps
        ]
    else:
        found += [Contender("dpm++ 2m", f"{n} steps", n, "dpmpp_2m") for n in fewer]
    intervals = (2, 3, 5) if steps <= 16 else (2, 3, 5, 8)

    def cached(family: str, setting: str, cache: CacheConfig) -> Contender:
        return Contender(family, setting, steps, None, cache)

    for n in intervals:
        found.append(cached("fora", f"every {n}", ForaConfig(interval=n)))
        for order in (1, 2):
            taylor = TaylorConfig(interval=n, order=order)
            found.append(cached(f"taylor {order}", f"every {n}", taylor))
        found.append(
            cached("tokens", f"every {n}, 25 %", TokenCacheConfig(interval=n, ratio=0.25))
        )
        for budget in (0.0, 0.25):
            for forecast in (False, True):
                cache = BranchCacheConfig(
                    interval=n, budget=budget, forecast=forecast, full_last=False
                )
                name = f"every {n}, budget {budget:g}{', forecast' if forecast else ''}"
                found.append(cached("moeca", name, cache))
            for order in (1,) if budget else (1, 2):
                cache = BranchCacheConfig(
                    interval=n, budget=budget, routing="with_budget", order=order, full_last=False
                )
                found.append(cached("moeca", f"every {n}, budget {budget:g}, lazy {order}", cache))
    middle = intervals[1]
    found.append(
        cached("tokens", f"every {middle}, 50 %", TokenCacheConfig(interval=middle, ratio=0.5))
    )
    for attention in ("always", "full_steps"):
        cache = BranchCacheConfig(
            interval=middle, budget=0.25, attention=attention, forecast=True, full_last=False
        )
        found.append(cached("moeca", f"every {middle}, budget 0.25, attention {attention}", cache))
    last = BranchCacheConfig(interval=middle, budget=0.25, forecast=True, full_last=True)
    found.append(cached("moeca", f"every {middle}, budget 0.25, last full", last))
    for threshold in (0.1, 0.2, 0.4):
        cache = FirstBlockConfig(threshold=threshold, interval=steps)
        found.append(cached("first block", f"threshold {threshold:g}", cache))
    return found
