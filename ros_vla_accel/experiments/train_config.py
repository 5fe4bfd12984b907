"""Settings of a training run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ros_vla_accel.sim.env import TASKS

FIRST_TRAINING_SEED = 100_000
"""Evaluation counts its seeds from zero, so training never sees them."""
SEEDS_PER_ROUND = 1_000
SHARES = {
    "drawer-open": 0.6,
    "button-press-topdown": 0.6,
    "button-press-red": 1.2,
    "button-press-blue": 1.2,
    "door-open": 1.0,
    "window-open": 0.6,
    "pick-place": 2.0,
    "peg-insert-side": 1.2,
}
"""Relative share of each task in the batches: the harder, the more."""
SIZES = (
    "width",
    "heads",
    "backbone_layers",
    "blocks",
    "experts",
    "experts_per_token",
    "expert_hidden",
)
"""What ``size`` may set of ``policies.config.ModelConfig``; the simulator decides the rest."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run; saved in its folder, so that it can be resumed. ValueError if senseless.

    episodes: demonstrations per task before the first step. dagger_episodes: per task and round;
    the rounds are spread evenly over the steps. samples: noise draws per encoded observation.
    weights: task -> relative share of the batches, that of ``SHARES`` where not named.
    size: see ``SIZES``.
    """

    tasks: tuple[str, ...] = TASKS
    objective: str = "flow"
    episodes: int = 100
    rounds: int = 3
    dagger_episodes: int = 20
    steps: int = 3600
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
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks {self.tasks} must be at least one, each named once")
        for name in ("episodes", "steps", "batch", "samples", "workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.rounds < 0 or (self.rounds and self.dagger_episodes < 1):
            raise ValueError("rounds must not be negative, and each needs dagger_episodes")
        if self.steps <= self.rounds:
            raise ValueError(f"steps {self.steps} must be more than rounds {self.rounds}")
        for name in ("episodes", "dagger_episodes"):
            if getattr(self, name) > SEEDS_PER_ROUND:
                raise ValueError(
                    f"{name} {getattr(self, name)} must be at most {SEEDS_PER_ROUND}, the seeds "
                    "of a round: more would be those of the next"
                )
        self._check_weights()
        unknown = sorted(set(self.size or {}) - set(SIZES))
        if unknown:
            raise ValueError(f"size has unknown names {unknown}; choose from {SIZES}")

    def _check_weights(self) -> None:
        names, weights = self._names, self.weights or {}
        unknown = sorted(set(weights) - set(names))
        if unknown:
            raise ValueError(f"weights name {unknown}, which is not trained; tasks are {names}")
        shares = self.shares.values()
        if not all(math.isfinite(s) and s >= 0 for s in shares) or not any(shares):
            raise ValueError(f"weights {weights} must be shares of 0 or more, not all of them 0")

    @property
    def shares(self) -> dict[str, float]:
        """Relative share of every task in the batches."""
        return {name: (self.weights or {}).get(name, SHARES[name]) for name in self._names}

    @property
    def _names(self) -> list[str]:
        return [task.removesuffix("-v3") for task in self.tasks]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Settings as ``to_dict`` gives them; ValueError for an unknown key."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"training settings have unknown keys {unknown}")
        return cls(**{**values, "tasks": tuple(values.get("tasks", TASKS))})

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Reads a run's settings; ValueError says what is wrong with the file."""
        try:
            return cls.from_dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"'{path}': {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON knows them."""
        return {**asdict(self), "tasks": list(self.tasks)}

    def command(self) -> str:
        """The command that makes such a run, but for its folder."""
        words, default = ["ros-vla-accel train --run RUN"], TrainConfig(tasks=self.tasks)
        if self.tasks != TASKS:
            words.append("--tasks " + " ".join(self.tasks))
        for spec in fields(self):
            value, usual = getattr(self, spec.name), getattr(default, spec.name)
            if value == usual or (spec.name == "weights" and self.shares == default.shares):
                continue
            if isinstance(value, dict):
                value = ",".join(f"{name}={number!r}" for name, number in value.items())
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
