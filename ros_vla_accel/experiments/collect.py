"""Demonstrations: scripted experts with noise, alone or in turn with a policy (DAgger)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ros_vla_accel.contracts import Observation, Policy
from ros_vla_accel.experiments.execution import ChunkPlayer
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.instructions import instructions
from ros_vla_accel.sim.env import MAX_SPEED_M_S, MAX_STEPS, SawyerEnv

log = logging.getLogger(__name__)

PLAN_ROWS = ModelConfig().horizon
TAIL_STEPS = 8
"""Actions recorded after success, so that the policy learns how to stay there."""
POLICY_RUN = (16, 64)
EXPERT_RUN = (8, 32)
"""Shortest and longest stretch, in actions, that policy and expert drive in a DAgger episode."""
MISREAD_SHARE, MISREAD_RUN = 0.5, (8, 40)
"""Share of the demonstrations that begin as if another instruction had been given, and for how
many actions: else the way that the hand has gone would tell the task, and no word had to be read.
The longest one ends before anything is pressed."""


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T actions.

    images: (T, C, S, S, 3) uint8. state: (T, D). plan: (T, H, A), what the expert would do from
    each state on, whatever moved the arm there, in the units of ``SawyerEnv.step``.
    expert_driven: (T,) bool, false where something else than the expert chose what was executed.
    privileged: (T, 15) positions, see ``SawyerEnv.privileged``.
    """

    task: str
    seed: int
    images: np.ndarray
    state: np.ndarray
    plan: np.ndarray
    expert_driven: np.ndarray
    privileged: np.ndarray

    @property
    def action(self) -> np.ndarray:
        """(T, A), what the expert would do in each state."""
        return self.plan[:, 0]

    def save(self, path: Path) -> None:
        """Writes an .npz that a reader finds whole or not at all."""
        partial = path.with_suffix(".partial.npz")
        np.savez(
            partial,
            task=self.task,
            seed=self.seed,
            images=self.images,
            state=self.state,
            plan=self.plan,
            expert_driven=self.expert_driven,
            privileged=self.privileged,
        )
        partial.rename(path)

    @classmethod
    def load(cls, path: Path) -> Episode:
        with np.load(path, allow_pickle=False) as data:
            return cls(
                str(data["task"]),
                int(data["seed"]),
                *(data[k] for k in ("images", "state", "plan", "expert_driven", "privileged")),
            )


class Disturbance:
    """Noise on the expert's action, so that the data shows how to come back.

    Small correlated noise throughout, its size drawn per episode, and now and then a burst that
    pushes the arm away for some actions.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._scale = rng.choice([0.0, 0.15, 0.3]) * MAX_SPEED_M_S
        self._burst_rate = rng.choice([0.0, 0.015, 0.03])
        self._noise = np.zeros(3)
        self._burst = np.zeros(4)
        self._left = 0

    def __call__(self, action: np.ndarray) -> tuple[np.ndarray, bool]:
        """What is executed instead of ``action``, and whether the expert still drives."""
        rng = self._rng
        self._noise = 0.7 * self._noise + 0.7 * self._scale * rng.standard_normal(3)
        if not self._left and rng.random() < self._burst_rate:
            self._left = int(rng.integers(3, 10))
            gripper = action[3] if rng.random() < 0.7 else rng.choice([-1.0, 1.0])
            self._burst = np.array([*rng.uniform(-MAX_SPEED_M_S, MAX_SPEED_M_S, 3), gripper])
        if self._left:
            self._left -= 1
            return self._burst, False
        return action + np.array([*self._noise, 0.0]), True


def observe(env: SawyerEnv, instruction: str, stamp_ns: int) -> Observation:
    """What the policy would see now."""
    images = {camera: env.render(camera) for camera in env.cameras}
    return Observation(images, env.state(), instruction, stamp_ns)


def _shows(seen: Observation) -> Callable[[int], Observation]:
    return lambda stamp_ns: seen


def record(env: SawyerEnv, seed: int, policy: Policy | None = None) -> tuple[Episode, bool]:
    """One episode; with a policy, it and the expert drive in turn. Also says if it succeeded."""
    rng = np.random.default_rng(seed)
    instruction = str(rng.choice(instructions(env.task)))
    disturb = Disturbance(rng)
    player = None if policy is None else ChunkPlayer(policy, float(rng.choice([0.0, 0.05, 0.1])))
    if player is not None:
        player.reset(seed, seed)
    policy_drives, left = player is not None, int(rng.integers(*POLICY_RUN))
    misread = 0
    if player is None and env.can_be_misread and rng.random() < MISREAD_SHARE:
        misread = int(rng.integers(*MISREAD_RUN))
    rows: list[tuple[np.ndarray, ...]] = []
    env.reset(seed)
    tail, gripper = TAIL_STEPS, -1.0
    for step in range(MAX_STEPS):
        plan = env.expert_plan(PLAN_ROWS)
        action = plan[0]
        seen = observe(env, instruction, round(step * 5e7))
        if player is not None and not left:
            policy_drives = not policy_drives
            left = int(rng.integers(*(POLICY_RUN if policy_drives else EXPERT_RUN)))
            player.reset(seed, seed + step, gripper)
        left -= 1
        if player is not None and policy_drives:
            executed, driven = player.act(step, _shows(seen)).action, False
        elif player is not None:
            executed, driven = action, True
        elif step < misread:
            executed, driven = env.expert_action(misread=True), False
        else:
            executed, driven = disturb(action)
        rows.append(
            (
                np.stack([seen.images[c] for c in env.cameras]),
                seen.state,
                plan,
                np.array(driven),
                np.concatenate(list(env.privileged().values())),
            )
        )
        env.step(executed)
        gripper = float(executed[3])
        tail -= env.success
        if not tail:
            break
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    return Episode(env.task, seed, *columns), env.success


def _collect(task: str, seeds: Sequence[int], folder: Path, checkpoint: Path | None) -> list[str]:
    """Worker: records the seeds of one task; returns one line per failed episode."""
    policy: Policy | None = None
    if checkpoint is not None:
        from ros_vla_accel.policies import reference

        policy = reference(checkpoint=str(checkpoint), threads=1)
    env = SawyerEnv(task)
    failures = []
    for seed in seeds:
        path = folder / f"{task}-{seed}.npz"
        if path.exists():
            continue
        episode, success = record(env, seed, policy)
        # Where a policy fails is what it has to learn, and the expert says how to go on.
        if success or policy is not None:
            episode.save(path)
        else:
            failures.append(f"{task} seed {seed}")
    env.close()
    return failures


def collect(
    folder: Path,
    seeds: dict[str, Sequence[int]],
    checkpoint: Path | None = None,
    workers: int = 1,
) -> Iterator[int]:
    """Records episodes (task -> seeds) into ``folder``, skipping those already there.

    Demonstrations are kept only if successful. Yields the number of episodes after each finished
    batch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    batches = [(t, s[i : i + 10]) for t, s in seeds.items() for i in range(0, len(s), 10)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(_collect, t, s, folder, checkpoint) for t, s in batches]
        for (_, batch), future in zip(batches, pending, strict=True):
            failures = future.result()
            if failures:
                log.warning("dropped, not successful: %s", ", ".join(failures))
            yield len(batch)
