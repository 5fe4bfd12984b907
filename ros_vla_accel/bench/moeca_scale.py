"""A larger DiT-MoE with random weights: how time follows the budget where experts are large."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from ros_vla_accel.bench.common import Result
from ros_vla_accel.moeca import BranchCacheConfig, begin, disable_cache, enable_cache, summary
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.head import ActionHead

SIZE = {"width": 1152, "heads": 16, "experts": 16, "expert_hidden": 4608, "horizon": 256}
BUDGETS = (None, 1.0, 0.5, 0.25, 0.1, 0.0)
"""None: without a cache."""
STEPS = 4
"""One full step, three in between, whose time is reported."""
MOVE = 0.02
"""How far noise moves between steps: a random network has no denoising path of its own."""


def run_scale(blocks: int, threads: list[int], turns: int, cpu_time: bool) -> Result:
    """Milliseconds of a step between full ones, per budget, bfloat16; budgets take turns."""
    clock = time.thread_time if cpu_time else time.perf_counter
    before = torch.get_num_threads()
    torch.manual_seed(0)
    head = ActionHead(ModelConfig(blocks=blocks, **SIZE)).bfloat16().eval()  # type: ignore[arg-type]
    for layer in head.zero_layers():
        torch.nn.init.normal_(layer.weight, std=0.02)
    context = torch.randn(1, 32, SIZE["width"], dtype=torch.bfloat16)
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        conditioning = head.condition(context, (torch.arange(STEPS) / STEPS).unsqueeze(0))
        for count in threads:
            torch.set_num_threads(count)
            taken: dict[Any, list[float]] = {budget: [] for budget in BUDGETS}
            reuse: dict[Any, float] = {}
            for _ in range(turns):
                for budget in BUDGETS:
                    if budget is not None:
                        config = BranchCacheConfig(budget=budget, interval=STEPS, full_last=False)
                        enable_cache(head, config)
                    session = begin(head, STEPS)
                    generator = torch.Generator().manual_seed(0)
                    x = torch.randn(1, 1, 256, 4, generator=generator)
                    seconds = []
                    for index in range(STEPS):
                        x = x + MOVE * torch.randn(x.shape, generator=generator)
                        start = clock()
                        with session.step(index):
                            head(x.bfloat16(), conditioning.step(index))
                        seconds.append(clock() - start)
                    taken[budget].append(float(np.mean(seconds[1:])))
                    if budget is not None:
                        counts = summary(head).counts
                        # Without the full step.
                        first = counts.branches / STEPS
                        done = (counts.branches_computed - first) / (counts.branches - first)
                        reuse[budget] = 1 - done
                        disable_cache(head)
            plain = np.array(taken[None])
            for budget in BUDGETS:
                own = np.array(taken[budget])
                rows.append(
                    {
                        "threads": count,
                        "budget": "no cache" if budget is None else budget,
                        "ms": 1e3 * float(np.median(own)),
                        "over_plain": float(np.median(own / plain)),
                        "branch_reuse": reuse.get(budget, 0.0),
                    }
                )
    torch.set_num_threads(before)
    config = {
        **SIZE,
        "blocks": blocks,
        "parameters_m": sum(p.numel() for p in head.parameters()) / 1e6,
        "turns": turns,
        "clock": "processor time of one thread" if cpu_time else "elapsed time",
        "random_weights": True,
    }
    ratios = {
        f"scale_step_over_plain_{row['budget']}": row["over_plain"]
        for row in rows
        if row["threads"] == threads[0]
    }
    return Result("moeca", config, rows, ratios)
