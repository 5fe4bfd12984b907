"""The form that all benchmark results have, and statistics for them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, load of others, Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


@dataclass
class Result:
    """A benchmark's outcome; ``summary`` holds the numbers that others read."""

    name: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, float]
    machine: dict[str, Any] = field(default_factory=machine)

    def write(self, path: str | Path) -> None:
        """Writes JSON. NaN becomes null, which every JSON reader takes."""
        text = json.dumps(_without_nan(asdict(self)), indent=2, allow_nan=False)
        Path(path).write_text(text + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def percentile(values: Sequence[float], percent: float) -> float:
    """NaN for no values."""
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of repeated runs."""
    return {
        "median": float(np.median(values)),
        "min": float(min(values)),
        "max": float(max(values)),
    }
