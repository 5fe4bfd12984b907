"""Trains the reference VLA on recorded episodes; keeps its state on disk."""

from __future__ import annotations

import csv
import ctypes
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ros_vla_accel.contracts import CameraSpec, PolicySpec
from ros_vla_accel.experiments.dataset import Batch, TrainingSet, load_episodes
from ros_vla_accel.experiments.train_config import TrainConfig
from ros_vla_accel.policies.checkpoint import Manifest, save_checkpoint
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.instructions import instructions
from ros_vla_accel.policies.model import STAGES, ReferenceVLA
from ros_vla_accel.policies.normalization import Normalization
from ros_vla_accel.policies.objectives import noisy_batch
from ros_vla_accel.policies.text import WordTokenizer
from ros_vla_accel.sim.env import CAMERAS, JOINT_NAMES, MAX_SPEED_M_S, STEP_S

log = logging.getLogger(__name__)

LIMITS = ([-MAX_SPEED_M_S] * 3 + [-1.0], [MAX_SPEED_M_S] * 3 + [1.0])
PRIVILEGED = 15
AUXILIARY_WEIGHT = 0.1
BALANCE_WEIGHT = 0.01
WARMUP_STEPS = 100
SAVE_EVERY_STEPS = 100
LOG = "log.csv"


def reference_spec(model: ModelConfig) -> PolicySpec:
    """Spec of the reference policy in the simulator."""
    size = model.image_size
    return PolicySpec(
        name="reference",
        cameras=tuple(CameraSpec(name, size, size) for name in CAMERAS),
        state_names=JOINT_NAMES,
        action_names=("vx", "vy", "vz", "gripper"),
        horizon=model.horizon,
        period_s=STEP_S,
        action_kind="cartesian_velocity",
        replan_rows=8,
        stages=STAGES,
    )


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory: page faults took a third of a step on a CPU."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option in (-1, -2, -3):  # trim threshold, top padding, mmap threshold (malloc.h)
            libc.mallopt(option, 1 << 28)
    except (OSError, AttributeError):
        log.info("no glibc here: training may be slower")


class Trainer:
    """AdamW with warm-up and cosine decay, and an average of the weights that is what counts.

    The loss is that of the objective, plus the mixture's load balance, plus the positions of
    hand, object, goal and landmarks told from the summary token, which teach the cameras what to
    look for and are dropped from the checkpoint.
    """

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        """Takes up the state in ``folder``; ValueError when it belongs to other settings."""
        keep_freed_memory()
        torch.set_num_threads(config.threads)
        self.config, self.folder = config, folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        texts = [text for task in config.tasks for text in instructions(task)]
        words = ModelConfig().words
        self.tokenizer = WordTokenizer.from_texts(texts, words)
        self.model_config = ModelConfig(
            vocabulary=self.tokenizer.size,
            objective=config.objective,
            state_features=3 * len(JOINT_NAMES),
            cameras=len(CAMERAS),
            **(config.size or {}),
        )
        torch.manual_seed(config.seed)
        self.model = ReferenceVLA(self.model_config).to(self.device)
        self.average = ReferenceVLA(self.model_config).to(self.device).requires_grad_(False)
        self.average.load_state_dict(self.model.state_dict())
        self.auxiliary = nn.Linear(self.model_config.width, PRIVILEGED).to(self.device)
        self.optimizer = torch.optim.AdamW(
            [*self.model.parameters(), *self.auxiliary.parameters()],
            lr=config.learning_rate,
            weight_decay=0.01,
            fused=True,
        )
        self.step = 0
        self.frames: TrainingSet | None = None
        self.frame_count = 0
        self.normalization: Normalization | None = None
        self.history: list[dict[str, Any]] = []
        self._restore()

    def load_episodes(self, folder: Path) -> None:
        """Takes all episodes recorded so far; the first call fixes the normalization.

        Raises ValueError when they are not of just the tasks that are trained.
        """
        episodes, tasks = load_episodes(folder), set(self.config.tasks)
        found = {episode.task for episode in episodes}
        if tasks - found:
            raise ValueError(
                f"no episode of {sorted(tasks - found)} ended in success; record more of them "
                "(--episodes) in another run, or leave the task out (--tasks)"
            )
        if found - tasks:
            raise ValueError(
                f"'{folder}' has episodes of {sorted(found - tasks)}, which is not trained"
            )
        self.frames = TrainingSet(
            episodes,
            self.model_config.horizon,
            self.tokenizer,
            self.normalization,
            LIMITS,
        )
        self.normalization = self.frames.normalization
        self.frame_count = len(self.frames)
        log.info("%d frames", self.frame_count)

    def train(self, until: int) -> Iterator[int]:
        """Trains up to step ``until``, yielding the step; the state is saved on the way."""
        if self.frames is None:
            raise RuntimeError("load_episodes comes first")
        self._note_settings()
        self.model.train()
        while self.step < until:
            started = time.perf_counter()
            # Seeded by the step, so that a resumed run draws what an unbroken one would.
            rng = np.random.default_rng([self.config.seed, self.step])
            torch.manual_seed(self.config.seed * 1_000_003 + self.step)
            batch = self.frames.draw(rng, self.config.batch, self.config.shares)
            losses = self._update(batch.to(self.device))
            self.step += 1
            self._log(losses, time.perf_counter() - started)
            if self.step % SAVE_EVERY_STEPS == 0 or self.step == until:
                self._save()
            yield self.step

    def _update(self, batch: Batch) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._schedule()
        losses = self.losses(batch)
        total = (
            losses["action"]
            + AUXILIARY_WEIGHT * losses["auxiliary"]
            + BALANCE_WEIGHT * losses["balance"]
        )
        self.optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.model.parameters()), 1 - decay
            )
        return {name: float(value.detach()) for name, value in losses.items()}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Unweighted parts of the loss."""
        rows = batch.actions
        shape = (len(rows), self.config.samples)
        noise = torch.randn(*shape, *rows.shape[2:], device=self.device)
        uniform = torch.rand(*shape, device=self.device)
        noisy, when, target = noisy_batch(self.config.objective, rows, noise, uniform)
        with torch.autocast(self.device.type, torch.bfloat16):
            context = self.model.backbone(
                self.model.vision(batch.images), batch.state, batch.words
            )
            found = self.model.head(noisy, self.model.head.condition(context, when))
            where = self.auxiliary(context[:, 0])
            balance = self.model.balance()
        return {
            "action": nn.functional.mse_loss(found.float(), target),
            "auxiliary": nn.functional.mse_loss(where.float(), batch.privileged),
            "balance": balance.float(),
        }

    def _schedule(self) -> float:
        warm = min(1.0, (self.step + 1) / WARMUP_STEPS)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.step / self.config.steps)))

    def manifest(self) -> Manifest:
        """What the checkpoint of this moment says about itself.

        ``history`` has the settings of every stretch of steps; ``command`` is that of the last.
        """
        if self.normalization is None or not self.history:
            raise RuntimeError("training comes first")
        last = TrainConfig.from_dict(self.history[-1]["config"])
        training = {
            "command": last.command(),
            "step": self.step,
            "steps": last.steps,
            "tasks": [task.removesuffix("-v3") for task in last.tasks],
            "seed": last.seed,
            "shares": last.shares,
            "frames": self.frame_count,
            "history": self.history,
        }
        return Manifest(
            reference_spec(self.model_config),
            self.model_config,
            self.normalization,
            self.tokenizer.vocabulary,
            training,
        )

    def export(self, folder: Path) -> str:
        """Writes the averaged weights as a checkpoint; returns their SHA-256."""
        return save_checkpoint(folder, self.average, self.manifest())

    def _note_settings(self) -> None:
        """Keeps from which step on the settings hold, if they are new."""
        config = {**self.config.to_dict(), "weights": self.config.shares}
        if not self.history or self.history[-1]["config"] != config:
            self.history.append({"from_step": self.step, "config": config})

    def _log(self, losses: dict[str, float], seconds: float) -> None:
        path = self.folder / LOG
        new = not path.exists() or not path.stat().st_size
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", *losses, "seconds"])
            writer.writerow([self.step, *(f"{v:.5f}" for v in losses.values()), f"{seconds:.3f}"])

    def _save(self) -> None:
        state = {
            "step": self.step,
            "frames": self.frame_count,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "auxiliary": self.auxiliary.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "normalization": self.manifest().normalization.to_dict(),
            "history": self.history,
            "kind": self._kind(),
        }
        partial = self.folder / "state.partial"
        torch.save(state, partial)
        partial.rename(self.folder / "state.pt")

    def _kind(self) -> dict[str, Any]:
        """What may not change in the course of a run, for the weights would mean nothing."""
        return {
            "tasks": list(self.config.tasks),
            "objective": self.config.objective,
            "model": self.model_config.to_dict(),
            "vocabulary": list(self.tokenizer.vocabulary),
        }

    def _restore(self) -> None:
        path = self.folder / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if "kind" not in state:
            raise ValueError(f"'{path}' does not say what it trained; start another run")
        for name, now in self._kind().items():
            if state["kind"][name] != now:
                raise ValueError(
                    f"'{path}' was trained with {name} {state['kind'][name]}, the settings ask "
                    f"for {now}; give the settings of that run, or start another"
                )
        for name in ("model", "average", "auxiliary", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.frame_count = state["step"], state["frames"]
        self.history = state["history"]
        self.normalization = Normalization.from_dict(state["normalization"])
        self._forget_log_after(self.step)
        log.info("resumed at step %d", self.step)

    def _forget_log_after(self, step: int) -> None:
        """Drops rows of steps that were lost with the process, and will be taken again."""
        path = self.folder / LOG
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if lines:
            # A row that the end of the process cut off is one of those, too.
            head, *rows = [line for line in lines if line.count(",") == lines[0].count(",")]
            kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= step]
            path.write_text("".join([head, *kept]))
