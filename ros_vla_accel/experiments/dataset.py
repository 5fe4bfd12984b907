"""Recorded episodes as batches for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ros_vla_accel.experiments.collect import Episode
from ros_vla_accel.policies.instructions import instructions
from ros_vla_accel.policies.normalization import Normalization
from ros_vla_accel.policies.text import UNKNOWN, WordTokenizer

SHIFT_PIXELS = 2
GAIN, TINT, OFFSET, NOISE = 0.45, 0.25, 15.0, 25.0
"""Largest change of brightness and of a colour channel (shares), of a camera's level (deviation,
in levels of 0..255) and of its noise (likewise): beyond those of ``perturbation.py``."""
WORD_DROPOUT = 0.08


@dataclass(frozen=True)
class Batch:
    """images: (B, C, 3, S, S) float in [0, 255]; state: (B, F); words: (B, W) int64;
    actions: (B, 1, H, A) normalized; privileged: (B, 15) normalized."""

    images: Tensor
    state: Tensor
    words: Tensor
    actions: Tensor
    privileged: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class TrainingSet:
    """Frames of all episodes in memory, drawn by task weight and augmented.

    The label of a frame is the expert's plan from it on, also where a policy or noise moved the
    arm there: no later frame of the episode takes part in it.
    """

    def __init__(
        self,
        episodes: list[Episode],
        horizon: int,
        tokenizer: WordTokenizer,
        normalization: Normalization | None,
        limits: tuple[list[float], list[float]],
    ) -> None:
        if not episodes:
            raise ValueError("no episodes to train on; collect some first")
        state = np.concatenate([e.state for e in episodes])
        plan = np.concatenate([e.plan for e in episodes])
        if plan.shape[1] < horizon:
            raise ValueError(
                f"episodes were recorded with plans of {plan.shape[1]} rows, the policy's horizon "
                f"is {horizon}; record them again in another run"
            )
        privileged = np.concatenate([e.privileged for e in episodes])
        self.normalization = normalization or Normalization.fit(state, plan[:, 0], *limits)
        self._images = np.concatenate([e.images for e in episodes]).transpose(0, 1, 4, 2, 3)
        self._state = self.normalization.state_features(state)
        self._privileged = (privileged - privileged.mean(0)) / (privileged.std(0) + 1e-3)
        self._chunks = self.normalization.normalize(plan[:, :horizon])
        self._tasks = np.repeat([e.task for e in episodes], [len(e.state) for e in episodes])
        self._frames = {
            task: np.flatnonzero(self._tasks == task) for task in np.unique(self._tasks)
        }
        self._words = {
            task: np.stack([tokenizer(text) for text in instructions(task)])
            for task in self._frames
        }

    def __len__(self) -> int:
        return len(self._state)

    def draw(self, rng: np.random.Generator, size: int, weights: Mapping[str, float]) -> Batch:
        """A batch of ``size`` frames; weights: task -> relative share (1 where not named)."""
        tasks = list(self._frames)
        share = np.array([weights.get(task.removesuffix("-v3"), 1.0) for task in tasks])
        picked = rng.choice(len(tasks), size, p=share / share.sum())
        index = np.array([rng.choice(self._frames[tasks[i]]) for i in picked])
        words = np.stack([rng.choice(self._words[tasks[i]]) for i in picked])
        words[(rng.random(words.shape) < WORD_DROPOUT) & (words > UNKNOWN)] = UNKNOWN
        return Batch(
            torch.from_numpy(augment(self._images[index], rng)),
            torch.from_numpy(self._state[index]),
            torch.from_numpy(words),
            torch.from_numpy(self._chunks[index]).unsqueeze(1),
            torch.from_numpy(self._privileged[index].astype(np.float32)),
        )


def augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift, brightness, colour and noise per camera: (B, C, 3, S, S) uint8 -> float32."""
    batch, cameras, channels, size, _ = images.shape
    pad = [(0, 0)] * 3 + [(SHIFT_PIXELS, SHIFT_PIXELS)] * 2
    padded = np.pad(images, pad, mode="edge")
    out = np.empty(images.shape, np.float32)
    for b, c in np.ndindex(batch, cameras):
        y, x = rng.integers(0, 2 * SHIFT_PIXELS + 1, 2)
        out[b, c] = padded[b, c, :, y : y + size, x : x + size]
    # How strong is drawn per image: the plain picture stays the most frequent one.
    strength = rng.uniform(0, 1, (batch, cameras, 1, 1, 1))
    gain = 1 + strength * rng.uniform(-GAIN, GAIN, strength.shape)
    gain = gain * (1 + strength * rng.uniform(-TINT, TINT, (batch, cameras, channels, 1, 1)))
    out = out * gain.astype(np.float32)
    out += (strength * rng.normal(0, OFFSET, strength.shape)).astype(np.float32)
    noise = NOISE * rng.uniform(0, 1, strength.shape).astype(np.float32) ** 2
    out += noise * rng.standard_normal(out.shape, dtype=np.float32)
    return out.clip(0, 255)


def load_episodes(folder: Path) -> list[Episode]:
    """All episodes of a folder, in a fixed order."""
    return [Episode.load(path) for path in episode_paths(folder)]


def episode_paths(folder: Path) -> list[Path]:
    """The finished episodes of a folder, in a fixed order."""
    return sorted(p for p in folder.glob("*.npz") if not p.name.endswith(".partial.npz"))
