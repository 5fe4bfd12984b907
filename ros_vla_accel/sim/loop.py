"""The simulated robot without ROS: ticks on a rising clock, commands that go stale, outputs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ros_vla_accel.sim.env import (
    CAMERAS,
    TICK_S,
    TICKS_PER_STEP,
    JointSample,
    SawyerEnv,
    full_task_name,
)

TICK_NS = round(TICK_S * 1e9)


@dataclass(frozen=True)
class SimConfig:
    """task: Meta-World task, ``-v3`` optional. seed: scene of the first episode.

    image_rate_hz: in simulated time, rounded to whole ticks of 10 ms.
    command_timeout_s: an older velocity counts as zero (simulated time).
    """

    task: str = "drawer-open"
    seed: int = 0
    cameras: tuple[str, ...] = CAMERAS
    image_size: int = 128
    image_rate_hz: float = 10.0
    command_timeout_s: float = 0.2

    def __post_init__(self) -> None:
        full_task_name(self.task)
        if not 0 < self.image_rate_hz <= 1 / TICK_S:
            raise ValueError(
                f"image_rate_hz {self.image_rate_hz} must lie above 0 and at most at {1 / TICK_S}"
            )
        if self.image_size < 1:
            raise ValueError(f"image_size {self.image_size} must be positive")


@dataclass(frozen=True)
class Tick:
    """What one tick gives. stamp_ns: on the loop's clock. images: of all cameras, or none."""

    stamp_ns: int
    joints: JointSample
    images: dict[str, np.ndarray] = field(default_factory=dict)


class SimLoop:
    """Advances the simulator by 10 ms per ``tick``. The clock rises across resets.

    ``command_velocity`` and ``command_gripper`` may come from other threads; all else belongs to
    the thread that ticks, since rendering is bound to it.
    """

    def __init__(self, config: SimConfig) -> None:
        self.config = config
        self.now_ns = 0
        self.episode = 0
        self._env = self._make(config.task)
        self._start(config.seed)

    def _make(self, task: str) -> SawyerEnv:
        env = SawyerEnv(task, self.config.cameras, self.config.image_size)
        for camera in env.cameras:
            env.render(camera)  # the first image takes long
        return env

    def _start(self, seed: int) -> None:
        self._env.reset(seed)
        self._ticks = 0
        self.now_ns += TICK_NS  # so that the last episode's commands have earlier stamps
        self._start_ns = self.now_ns
        self._velocity: tuple[np.ndarray, int] = (np.zeros(3), self.now_ns)
        self._gripper = -1.0

    @property
    def joint_names(self) -> tuple[str, ...]:
        return self._env.joint_names

    @property
    def task(self) -> str:
        """Without the ``-v3``."""
        return self._env.task.removesuffix("-v3")

    @property
    def seed(self) -> int:
        return self._env.seed

    @property
    def success(self) -> bool:
        """Whether this episode's task was solved, at any time of it."""
        return self._env.success

    @property
    def episode_time_s(self) -> float:
        return self._env.time_s

    def reset(self, task: str | None = None, seed: int | None = None) -> None:
        """Starts the next episode: of the same task unless given, with the next seed unless given.

        ValueError for an unknown task, before anything changes.
        """
        seed = self.seed + 1 if seed is None else seed
        if task is not None and full_task_name(task) != self._env.task:
            replacement = self._make(task)
            self._env.close()
            self._env = replacement
        self.episode += 1
        self._start(seed)

    def command_velocity(self, velocity: np.ndarray, stamp_ns: int = 0) -> None:
        """velocity: (3,) m/s. stamp_ns: 0 means now. ValueError when it is not finite.

        A command stamped before the reset is meant for the last episode, and dropped.
        """
        velocity = np.asarray(velocity, dtype=np.float64)
        if velocity.shape != (3,) or not np.isfinite(velocity).all():
            raise ValueError(f"velocity {velocity.tolist()} is not three finite numbers")
        # A stamp from the future is from before a restart of this simulator.
        stamp_ns = stamp_ns if 0 < stamp_ns <= self.now_ns else self.now_ns
        if stamp_ns >= self._start_ns:
            self._velocity = (velocity, stamp_ns)

    def command_gripper(self, gripper: float) -> None:
        """-1 (open) to 1 (closed); kept until the next. ValueError when it is not finite."""
        if not np.isfinite(gripper):
            raise ValueError(f"gripper command {gripper} is not finite")
        self._gripper = float(gripper)

    def tick(self) -> Tick:
        velocity, stamp_ns = self._velocity
        if self.now_ns - stamp_ns > self.config.command_timeout_s * 1e9:
            velocity = np.zeros(3)
        self._env.samples.clear()
        self._env.advance(velocity, self._gripper)
        self.now_ns += TICK_NS
        self._ticks += 1
        draw = self._ticks % max(1, round(1 / (self.config.image_rate_hz * TICK_S))) == 0
        if draw or self._ticks % TICKS_PER_STEP == 0:
            self._env.check_success(self._gripper)
        images = {camera: self._env.render(camera) for camera in self._env.cameras if draw}
        return Tick(self.now_ns, self._env.samples[-1], images)

    def close(self) -> None:
        self._env.close()
