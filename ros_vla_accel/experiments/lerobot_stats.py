"""Statistics of a data set's features, as LeRobot's normalization reads them.

Every frame counts and the quantiles are exact. For that the numbers of all frames stay in memory,
some 100 bytes per frame; of the images stays how often each channel had each of its 256 levels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Stats = dict[str, np.ndarray]
"""min, max, mean, std, the quantiles, and count (1,), the number of frames. Of a vector of D
numbers they are (D,), of an image (3, 1, 1) with levels in [0, 1]."""

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


class SetStatistics:
    """Statistics of each episode and of all together."""

    def __init__(self) -> None:
        self._vectors: dict[str, list[np.ndarray]] = {}
        self._levels: dict[str, np.ndarray] = {}
        self._frames = 0

    def add(
        self, vectors: Mapping[str, np.ndarray], images: Mapping[str, np.ndarray]
    ) -> dict[str, Stats]:
        """Adds an episode of T frames and returns its own statistics by feature.

        vectors: (T,) or (T, D). images: (T, height, width, 3) uint8.
        """
        stats = {}
        for name, values in vectors.items():
            self._vectors.setdefault(name, []).append(values)
            stats[name] = vector_stats(values)
        for name, values in images.items():
            levels = count_levels(values)
            self._levels[name] = self._levels.get(name, 0) + levels
            stats[name] = image_stats(levels, len(values))
        self._frames += len(next(iter(vectors.values())))
        return stats

    def of_all(self) -> dict[str, Stats]:
        """Statistics by feature over all episodes added."""
        vectors = {n: vector_stats(np.concatenate(v)) for n, v in self._vectors.items()}
        return {**vectors, **{n: image_stats(v, self._frames) for n, v in self._levels.items()}}


def vector_stats(values: np.ndarray) -> Stats:
    """Statistics over the first axis of (T,) or (T, D)."""
    values = values.reshape(len(values), -1).astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def count_levels(images: np.ndarray) -> np.ndarray:
    """How often each level occurs in each channel: (T, height, width, 3) uint8 -> (3, 256)."""
    return np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(3)])


def image_stats(levels: np.ndarray, frames: int) -> Stats:
    """Statistics of ``frames`` images from their counts of levels (3, 256)."""
    scale = np.arange(256) / 255
    pixels = int(levels[0].sum())
    up_to = levels.cumsum(axis=1)

    def ranked(rank: int) -> np.ndarray:
        return np.array([np.searchsorted(c, rank, side="right") for c in up_to]) / 255

    def quantile(share: float) -> np.ndarray:
        position = share * (pixels - 1)
        rank = int(position)
        below, above = ranked(rank), ranked(min(rank + 1, pixels - 1))
        return below + (position - rank) * (above - below)

    mean = levels @ scale / pixels
    stats = {
        "min": ranked(0),
        "max": ranked(pixels - 1),
        "mean": mean,
        "std": np.sqrt((levels * (scale - mean[:, None]) ** 2).sum(axis=1) / pixels),
        **{name: quantile(share) for name, share in QUANTILES.items()},
    }
    return {**{n: v.reshape(3, 1, 1) for n, v in stats.items()}, "count": np.array([frames])}
