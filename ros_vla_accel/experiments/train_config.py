"""Settings of a training run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ros_vla_accel.sim.env import TASKS

FIRST_TRAINING_SEED = 100_000
"""Evaluation counts its seeds from zero, so training never sees them."""
SEEDS_PER_ROUND = 1_000


@dataclass(frozen=True)
class TrainConfig:
    """One training run; saved in its folder, so that it can be resumed.

    episodes: demonstrations per task before the first step. dagger_episodes: per task and round;
    the rounds are spread evenly over the steps. samples: noise draws per encoded observation.
    weights: task -> relative share of the batches.
    """

    tasks: tuple[str, ...] = TASKS
    objective: str = "flow"
    episodes: int = 100
    rounds: int = 4
    dagger_episodes: int = 20
    steps: int = 3000
    batch: int = 64
    samples: int = 1
    learning_rate: float = 5e-4
    ema: float = 0.998
    workers: int = 2
    threads: int = 2
    seed: int = 0
    weights: dict[str, float] | None = None
    size: dict[str, int] | None = None

    def __post_init__(self) -> None:
        for name in ("episodes", "steps", "batch", "samples", "workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.rounds < 0 or (self.rounds and self.dagger_episodes < 1):
            raise ValueError("rounds must not be negative, and each needs dagger_episodes")

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        values = json.loads(path.read_text())
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"'{path}' has unknown keys {unknown}")
        return cls(**{**values, "tasks": tuple(values["tasks"])})

    def command(self) -> str:
        """The command that makes such a run, but for its folder."""
        words = ["ros-vla-accel train --run RUN"]
        for spec in fields(self):
            value, usual = getattr(self, spec.name), getattr(TrainConfig(), spec.name)
            if value == usual or spec.name in ("size", "workers", "threads"):
                continue
            if isinstance(value, dict):
                value = ",".join(f"{task}={share:g}" for task, share in value.items())
            elif isinstance(value, tuple):
                value = " ".join(value)
            words.append(f"--{spec.name.replace('_', '-')} {value}")
        return " ".join(words)


QUICK = TrainConfig(
    tasks=("drawer-open-v3",),
    episodes=2,
    rounds=1,
    dagger_episodes=1,
    steps=6,
    batch=8,
    workers=1,
    threads=1,
    size={"width": 48, "heads": 2, "backbone_layers": 1, "expert_hidden": 48},
)
"""Minutes on any machine; shows that everything runs, learns nothing."""


def round_seeds(config: TrainConfig, number: int) -> dict[str, Sequence[int]]:
    """Seeds of a round, task -> seeds; round 0 are the demonstrations."""
    first = FIRST_TRAINING_SEED + number * SEEDS_PER_ROUND
    count = config.dagger_episodes if number else config.episodes
    return {task: range(first, first + count) for task in config.tasks}
