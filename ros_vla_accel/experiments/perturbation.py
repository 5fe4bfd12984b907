"""What a camera does to an image on another day: noise, brightness, a shift of the colours.

Strengths are moderate: a person sees the change at once and the scene as well as before.
"""

from __future__ import annotations

import numpy as np

PERTURBATIONS = ("none", "noise", "brightness", "colour")
NOISE_LEVELS = 20.0
"""Deviation of the noise on every value of every image, in levels of 0..255."""
DARK, BRIGHT = 0.65, 1.35
"""Gain of all images of an episode, one or the other."""
TINT = 0.2
"""Largest gain or loss per colour channel, the same for all images of an episode."""


class Perturbation:
    """Changes the images of one episode; the episode's seed decides how.

    Raises ValueError for a kind that is not in ``PERTURBATIONS``.
    """

    def __init__(self, kind: str, seed: int) -> None:
        if kind not in PERTURBATIONS:
            raise ValueError(
                f"perturbation '{kind}' is unknown; choose from {', '.join(PERTURBATIONS)}"
            )
        self._rng = np.random.default_rng([seed, PERTURBATIONS.index(kind)])
        self._gain, self._noise = np.ones(3), 0.0
        if kind == "noise":
            self._noise = NOISE_LEVELS
        elif kind == "brightness":
            self._gain = np.full(3, self._rng.choice([DARK, BRIGHT]))
        elif kind == "colour":
            self._gain = 1 + self._rng.uniform(-TINT, TINT, 3)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """image: (H, W, 3) uint8, RGB -> the same shape; itself when nothing is to be changed."""
        if not self._noise and (self._gain == 1).all():
            return image
        changed = image * self._gain + self._noise * self._rng.standard_normal(image.shape)
        return changed.round().clip(0, 255).astype(np.uint8)
