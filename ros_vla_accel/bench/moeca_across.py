"""What the inference before has to offer: branches handed on under the same noise or new noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ros_vla_accel.bench.moeca_cases import Case, cases, executed_rows
from ros_vla_accel.bench.moeca_contenders import SAMPLERS, Contender
from ros_vla_accel.bench.moeca_measure import Bench, errors
from ros_vla_accel.moeca import BranchCacheConfig, following, summary

LIMITS = (0.1, 0.2, 0.3, 0.5)


def across(bench: Bench, key: str, episodes: int) -> list[dict[str, Any]]:
    """Rows of every limit, kind of noise and distance of observations, in rows of a chunk.

    Every step is full, so that all reuse is of the inference before. Times and errors are of
    inferences that follow one, against the plain head with the same noise.
    """
    policy, found = bench.policy, []
    for rows in (1, executed_rows(policy.spec)):
        fresh = cases(policy, episodes, rows)
        same: list[Case] = []
        for case in fresh:
            noise = same[-1].noise if case.follows else case.noise
            same.append(Case(case.context, noise, case.follows))
        for noise, made in {"same": same, "new": fresh}.items():
            for limit in LIMITS:
                row = {"sampler": key, "rows_apart": rows, "noise": noise, "across": limit}
                found.append(row | _one(bench, key, made, limit))
    return found


def _one(bench: Bench, key: str, made: list[Case], limit: float) -> dict[str, float]:
    sampler = SAMPLERS[key]
    plain = Contender("none", "", sampler.solver, sampler.steps)
    cache = BranchCacheConfig(budget=1.0, across=limit)
    contender = Contender("across", "", sampler.solver, sampler.steps, cache)
    times: list[list[float]] = [[], []]
    chunks: list[list[torch.Tensor]] = [[], []]
    for side, entry in enumerate((plain, contender)):
        bench.enable(entry)
        stream = 0
        for case in made:
            stream += not case.follows
            with following(bench.head, stream):
                start = bench.clock()
                chunk = bench.infer(entry, case)
                took = bench.clock() - start
            if case.follows:
                times[side].append(took)
                chunks[side].append(chunk)
        if side:
            counts = summary(bench.head).counts
        bench.disable(entry)
    # The first inference of an episode has nothing to reuse.
    share = sum(case.follows for case in made) / len(made)
    found, exact = (torch.stack(side).flatten(1, 2).numpy() for side in chunks[::-1])
    return {
        "reuse": (1 - counts.branches_computed / counts.branches) / share,
        "error_across": errors(bench.policy, found, exact)["error_mean"],
        "ms": 1e3 * float(np.median(times[1])),
        "speedup": float(np.median(np.array(times[0]) / np.array(times[1]))),
    }
