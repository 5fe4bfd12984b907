"""Figures of an evaluation, and the form in which results are written."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson, 1927); (0, 1) without trials.

    Raises ValueError unless 0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes {successes} must lie in 0..trials ({trials})")
    if not trials:
        return 0.0, 1.0
    rate, scale = successes / trials, z * z / trials
    centre = (rate + scale / 2) / (1 + scale)
    half = z / (1 + scale) * math.sqrt(rate * (1 - rate) / trials + scale / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(
    ours: Sequence[bool], theirs: Sequence[bool], z: float = 1.96
) -> tuple[float, float, float]:
    """Difference of two success rates over the same seeds, and its 95 % interval.

    Adjusted Wald interval of matched pairs (Agresti and Min, 2005). NaN without pairs. Raises
    ValueError when the lengths differ.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} outcomes are not pairs")
    if not ours:
        return math.nan, math.nan, math.nan
    better = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    worse = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    pairs, b, c = len(ours) + 2, better + 0.5, worse + 0.5
    centre = (b - c) / pairs
    half = z * math.sqrt(b + c - (b - c) ** 2 / pairs) / pairs
    return (better - worse) / len(ours), centre - half, centre + half


def ratio_of_means(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]
) -> tuple[float, float, float]:
    """Mean of theirs over mean of ours, and its 95 % interval; each entry is one episode's values.

    Percentile bootstrap over episodes, in pairs, 2,000 times with a fixed seed. NaN without any.
    Raises ValueError when the lengths differ.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} episodes are not pairs")
    sums = np.array(
        [(sum(a), len(a), sum(b), len(b)) for a, b in zip(ours, theirs, strict=True)], float
    ).reshape(-1, 4)
    picks = np.random.default_rng(0).integers(len(sums) or 1, size=(2000, len(sums)))

    def ratio(total: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return (total[..., 2] / total[..., 3]) / (total[..., 0] / total[..., 1])

    low, high = np.percentile(ratio(sums[picks].sum(1)), [2.5, 97.5])
    return float(ratio(sums.sum(0))), float(low), float(high)


def percentile(values: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics; nan when there are none."""
    ordered = sorted(v for v in values if not math.isnan(v))
    if not ordered:
        return math.nan
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def write_json(
    path: Path,
    name: str,
    config: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    summary: Mapping[str, float],
) -> None:
    """Writes the benchmark form; a figure that does not exist (nan) becomes null.

    What JSON has no word for, such as a date among the arguments, is written as text.
    """
    content = {
        "name": name,
        "machine": machine(),
        "config": dict(config),
        "rows": [dict(row) for row in rows],
        "summary": dict(summary),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(_without_nan(content), indent=1, default=str) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Writes a file that a reader finds whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def check_writable(path: Path) -> None:
    """Raises ValueError unless a result can be written to ``path``; leaves what is there."""
    new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise ValueError(f"--json {path} cannot be written: {error}") from error
    if new:
        path.unlink()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
