"""What a calibration is made of: motion, errors per width, and perturbed steps, in simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ros_vla_accel.contracts import (
    ACTIVATION_BITS,
    ActionChunk,
    InferenceRequest,
    Observation,
    Policy,
    PolicySpec,
)
from ros_vla_accel.experiments.closed_loop import StateOrder
from ros_vla_accel.experiments.execution import ChunkPlayer
from ros_vla_accel.experiments.width import SimMotion
from ros_vla_accel.kinematics.increments import Increment
from ros_vla_accel.policies.instructions import instructions
from ros_vla_accel.sim.env import MAX_SPEED_M_S, MAX_STEPS, JointSample, SawyerEnv

SCALE = np.array([MAX_SPEED_M_S] * 3 + [1.0])
"""Full scale of each column of an action of the simulator: errors are shares of it."""
TAIL_STEPS = 8
FIRST_PROBE = 12
"""Windows of the controller are full by then."""


@dataclass
class Recording:
    """One closed-loop episode of T steps at full precision.

    increments: one per step. samples: all joint states. actions: (T, A), executed. asked: the R
    steps at which a chunk was asked for. errors: bits -> (R,), see ``chunk_error``. probed: the P
    probed steps. sensitivity: (P,), m per full scale: s_t = D_T / e_t. noise: (P,), m: D_T of
    another seed of the policy's own noise, without any perturbation.
    """

    task: str
    seed: int
    success: bool = False
    increments: list[Increment] = field(default_factory=list)
    samples: list[JointSample] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    errors: dict[int, list[float]] = field(default_factory=dict)
    probed: list[int] = field(default_factory=list)
    sensitivity: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)


def chunk_error(chunk: ActionChunk, exact: ActionChunk, rows: int) -> float:
    """What the first ``rows`` rows of a chunk do wrong, as a share of full scale.

    Velocities add up while a chunk is played, so their errors do: to what one wrong step of that
    size would move. The last column, the gripper's position, counts by its largest error.
    """
    wrong = (chunk.actions[:rows] - exact.actions[:rows]) / SCALE
    return float(np.hypot(np.linalg.norm(wrong[:, :3].sum(0)), np.abs(wrong[:, 3]).max()))


class _Widths:
    """The policy at 16 bits, with the errors of the same inference at fewer in ``errors``."""

    def __init__(self, policy: Policy) -> None:
        self.spec: PolicySpec = policy.spec
        self.reset = policy.reset
        self._policy = policy
        self.errors: dict[int, list[float]] = {
            bits: [] for bits in ACTIVATION_BITS if bits in policy.spec.widths and bits < 16
        }

    def infer(self, requests: Sequence[InferenceRequest]) -> list[ActionChunk]:
        exact = self._policy.infer(requests)
        for bits, errors in self.errors.items():
            coarse = self._policy.infer([replace(r, activation_bits=bits) for r in requests])
            errors += [
                chunk_error(c, e, self.spec.replan_rows + 1)
                for c, e in zip(coarse, exact, strict=True)
            ]
        return exact


class MotionProbe:
    """Records episodes of one task. source: of the increments, see ``SimMotion``."""

    def __init__(self, policy: Policy, task: str, source: str) -> None:
        self._policy, self._source = policy, source
        cameras = policy.spec.cameras
        size = max(max(camera.height, camera.width) for camera in cameras)
        self._env = SawyerEnv(task, tuple(camera.name for camera in cameras), size)
        self._order = StateOrder(self._env, policy.spec.state_names)
        self._words = instructions(self._env.task)

    def close(self) -> None:
        self._env.close()

    def record(
        self, seed: int, probes: int, directions: int, progress: Callable[[], None]
    ) -> Recording:
        """One episode; then ``probes`` of its steps are executed wrongly, in ``directions`` ways.

        progress: called after the episode and after each probe.
        """
        env, result = self._env, Recording(self._env.task, seed)
        env.reset(seed)
        widths = _Widths(self._policy)
        player = self._player(widths, seed, 0)
        motion = SimMotion(self._source, self._policy.spec.period_s)
        start = JointSample(env.time_s, *env.joints())
        if self._source != "action":
            motion.update([start], np.zeros(0))
        snapshots, left = [], TAIL_STEPS
        for step in range(MAX_STEPS):
            snapshots.append(env.snapshot())
            row = player.act(step, self._observe)
            if len(player.bits) > len(result.asked):
                result.asked.append(step)
            env.step(row.action)
            result.actions.append(row.action)
            result.samples += env.samples
            result.increments += motion.update(env.samples, row.action)
            left -= env.success
            if not left:
                break
        result.success, result.errors = env.success, widths.errors
        progress()
        last = len(snapshots) - TAIL_STEPS if env.success else len(snapshots)
        rng = np.random.default_rng(seed)
        steps = np.linspace(FIRST_PROBE, max(FIRST_PROBE, last - 1), probes, dtype=int)
        for step in np.unique(np.minimum(steps, len(snapshots) - 1)).tolist():
            self._probe(result, snapshots, step, directions, rng)
            progress()
        return result

    def _probe(
        self,
        result: Recording,
        snapshots: list,
        step: int,
        directions: int,
        rng: np.random.Generator,
    ) -> None:
        action, end = result.actions[step], len(snapshots)
        nominal = self._finish(snapshots[step], step, action, end, result.seed, 1)
        found = []
        while len(found) < directions:
            push = rng.standard_normal(len(SCALE))
            push *= SCALE / np.linalg.norm(push)
            wrong = np.clip(action + push, -SCALE, SCALE).astype(np.float32)
            size = float(np.linalg.norm((wrong - action) / SCALE))
            if size < 0.3:  # Clipped away: it would divide noise by nothing.
                continue
            moved = self._finish(snapshots[step], step, wrong, end, result.seed, 1) - nominal
            found.append(float(np.linalg.norm(moved)) / size)
        other = self._finish(snapshots[step], step, action, end, result.seed, 2)
        result.probed.append(step)
        result.sensitivity.append(float(np.mean(found)))
        result.noise.append(float(np.linalg.norm(other - nominal)))

    def _finish(
        self, snapshot: object, step: int, action: np.ndarray, end: int, seed: int, stream: int
    ) -> np.ndarray:
        """Where hand and object are (6,), m, at step ``end`` if ``action`` is executed at ``step``
        and the policy then goes on, with its noise drawn from ``stream``."""
        env = self._env
        env.restore(snapshot)
        env.step(action)
        player = self._player(self._policy, seed, stream, float(action[-1]))
        for later in range(step + 1, end):
            env.step(player.act(later, self._observe).action)
        places = env.privileged()
        return np.concatenate([places["hand"], places["object"]])

    def _player(
        self, policy: Policy | _Widths, seed: int, stream: int, gripper: float = -1.0
    ) -> ChunkPlayer:
        player = ChunkPlayer(policy)
        player.reset(seed, (seed << 16) + (stream << 12), gripper)
        return player

    def _observe(self, stamp_ns: int) -> Observation:
        env, spec = self._env, self._policy.spec
        images = {camera.name: env.render(camera.name) for camera in spec.cameras}
        words = self._words[env.seed % len(self._words)]
        return Observation(images, self._order(env.state()), words, stamp_ns)
