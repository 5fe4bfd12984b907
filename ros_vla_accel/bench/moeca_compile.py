"""What ``torch.compile`` makes of the head, with and without caches."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import torch
from torch._dynamo.utils import counters

from ros_vla_accel.bench.moeca_cases import Case
from ros_vla_accel.bench.moeca_contenders import SAMPLERS, contenders
from ros_vla_accel.bench.moeca_measure import Bench

SHOWN = (("none", ""), ("taylor 2", "every 3"), ("moeca", "every 3, budget 0.25"))


def compiled(bench: Bench, key: str, case: Case, turns: int) -> list[dict[str, Any]]:
    """Rows of some contenders: graph breaks within the denoising loop, seconds of the first call,
    milliseconds eager and compiled in turns, largest distance between both chunks.

    Needs a C++ compiler; takes minutes. The cache's calls are Python that the compiler traces
    through, so a cached head stays a cached one.
    """
    torch._logging.set_logs(dynamo=logging.ERROR)
    entries = contenders(SAMPLERS[key])
    chosen = [c for c in entries if (c.family, "" if c is entries[0] else c.setting) in SHOWN]
    rows = []
    for contender in chosen:
        torch._dynamo.reset()
        counters.clear()
        bench.enable(contender)
        eager = bench.infer(contender, case)
        original = bench.head.forward
        fast = torch.compile(original)
        times: list[list[float]] = [[], []]
        try:
            bench.head.forward = fast
            start = time.perf_counter()
            found = bench.infer(contender, case)
            first_s = time.perf_counter() - start
            breaks = sum(counters["graph_break"].values())
            for turn in range(-1, turns):
                for side, forward in enumerate((original, fast)):
                    bench.head.forward = forward
                    start = bench.clock()
                    bench.infer(contender, case)
                    if turn >= 0:
                        times[side].append(bench.clock() - start)
        finally:
            del bench.head.forward
        bench.disable(contender)
        rows.append(
            {
                "sampler": key,
                "compiled": f"{contender.family}, {contender.setting}",
                "graph_breaks": breaks,
                "first_call_s": first_s,
                "ms_eager": 1e3 * float(np.median(times[0])),
                "ms_compiled": 1e3 * float(np.median(times[1])),
                "largest_difference": float((found - eager).abs().max()),
            }
        )
    return rows
