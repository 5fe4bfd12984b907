"""What an expert costs: a price for reading its weights, and one per row."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ros_vla_accel.moeca.adapter import HeadAdapter

ROWS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class CostModel:
    """Relative cost of the parts of a block; one row of one expert costs 1.

    fixed_rows: what calling an expert costs before its first row (a / b of a + b * rows).
    attention_rows: the attention paths of one block, whole. The defaults are about those of the
    reference head on a CPU; ``fit_cost`` measures them for a head and machine. They are part of
    the configuration because choices depend on them: two machines that shall make the same chunk
    must share them.
    """

    fixed_rows: float = 8.0
    attention_rows: float = 64.0

    def __post_init__(self) -> None:
        if self.fixed_rows < 0 or self.attention_rows < 0:
            raise ValueError(
                f"costs {self.fixed_rows}, {self.attention_rows} must not be negative; "
                "measure them with fit_cost(head, rows, attention)"
            )

    def expert(self, rows: float) -> float:
        """Cost of one expert for so many rows; nothing for none, its weights are not read."""
        return self.fixed_rows + rows if rows else 0.0


def fit_cost(
    head: HeadAdapter,
    width: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    attention: Callable[[], object] | None = None,
    repeats: int = 15,
) -> CostModel:
    """Measures the experts of the first block at 1 to 32 rows of ``width`` and fits a + b * rows.

    attention: runs the attention paths of one block on inputs of the caller's; without it the
    default price stays. Every point is the least of ``repeats`` timings, as a busy machine only
    ever adds time. Takes some milliseconds; call it once per machine, before ``enable_cache``.
    """
    layer = head.blocks[0].layer
    seconds = np.zeros(len(ROWS))
    with torch.inference_mode():
        for index, rows in enumerate(ROWS):
            x = torch.randn(rows, width, dtype=dtype, device=device)
            # Experts take turns: in a model, the weights of one are not in the caches either.
            calls = [lambda e=e, x=x: layer.run(e, x) for e in range(layer.experts)]
            seconds[index] = min(_elapsed(calls, device) for _ in range(repeats)) / len(calls)
        per_row, fixed = np.polyfit(ROWS, seconds, 1)
        # A slope of nothing (a device that is never full) would make the price infinite.
        per_row = max(per_row, seconds[0] * 1e-3)
        fitted = max(float(fixed / per_row), 0.0)
        if attention is None:
            return CostModel(fixed_rows=fitted)
        whole = min(_elapsed([attention], device) for _ in range(repeats))
    return CostModel(fitted, float(whole / per_row))


def _elapsed(calls: list[Callable[[], object]], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for call in calls:
        call()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
