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
WORD_DROPOUT = 0.05


@dataclass(frozen=True)
class Batch:
    """images: (B, C, 3, S, S) float in [0, 255]; state: (B, F); words: (B, W) int64;
    actions: (B, 1, H, A) normalized; valid: (B, 1, H, 1) bool, rows that carry a label;
    privileged: (B, 9) normalized."""

    images: Tensor
    state: Tensor
    words: Tensor
    actions: Tensor
    valid: Tensor
    privileged: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class TrainingSet:
    """Frames of all episodes in memory, drawn by task weight and augmented.

    The label of a frame is what the expert commanded in it and in the following ones, as far as
    the expert drove: after something else moved the arm, what comes is not its doing. So a frame
    that the policy reached in a DAgger episode has at least its first row.
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
        action = np.concatenate([e.action for e in episodes])
        privileged = np.concatenate([e.privileged for e in episodes])
        self.normalization = normalization or Normalization.fit(state, action, *limits)
        self._images = np.concatenate([e.images for e in episodes]).transpose(0, 1, 4, 2, 3)
        self._state = self.normalization.state_features(state)
        self._privileged = (privileged - privileged.mean(0)) / (privileged.std(0) + 1e-3)
        chunks, valid, tasks = [], [], []
        for episode in episodes:
            rows, ok = label_chunks(episode.action, episode.expert_driven, horizon)
            chunks.append(rows)
            valid.append(ok)
            tasks += [episode.task] * len(rows)
        self._chunks = self.normalization.normalize(np.concatenate(chunks))
        self._valid = np.concatenate(valid)
        self._tasks = np.array(tasks)
        self._frames = {task: np.flatnonzero(self._tasks == task) for task in sorted(set(tasks))}
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
            torch.from_numpy(self._valid[index])[:, None, :, None],
            torch.from_numpy(self._privileged[index].astype(np.float32)),
        )


def label_chunks(
    action: np.ndarray, expert_driven: np.ndarray, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Expert's action (T, A) -> chunks (T, H, A) and which rows are labels (T, H)."""
    steps = len(action)
    index = np.arange(steps)[:, None] + np.arange(horizon)
    inside = index < steps
    index = np.minimum(index, steps - 1)
    undisturbed = np.cumprod(np.where(inside, expert_driven[index], False), axis=1).astype(bool)
    valid = inside.copy()
    valid[:, 1:] &= undisturbed[:, :-1]
    return action[index], valid


def augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift, brightness, colour and noise per camera: (B, C, 3, S, S) uint8 -> float32."""
    batch, cameras, channels, size, _ = images.shape
    pad = [(0, 0)] * 3 + [(SHIFT_PIXELS, SHIFT_PIXELS)] * 2
    padded = np.pad(images, pad, mode="edge")
    out = np.empty(images.shape, np.float32)
    for b, c in np.ndindex(batch, cameras):
        y, x = rng.integers(0, 2 * SHIFT_PIXELS + 1, 2)
        out[b, c] = padded[b, c, :, y : y + size, x : x + size]
    gain = rng.uniform(0.8, 1.2, (batch, cameras, 1, 1, 1))
    gain = gain * rng.uniform(0.95, 1.05, (batch, cameras, channels, 1, 1))
    out = out * gain.astype(np.float32)
    out += rng.normal(0, 10, (batch, cameras, 1, 1, 1)).astype(np.float32)
    out += rng.standard_normal(out.shape, dtype=np.float32) * rng.uniform(0, 5)
    return out.clip(0, 255)


def load_episodes(folder: Path) -> list[Episode]:
    """All episodes of a folder, in a fixed order."""
    paths = sorted(p for p in folder.glob("*.npz") if not p.name.endswith(".partial.npz"))
    return [Episode.load(path) for path in paths]
