"""What quantization_controller computes per joint sample, and how much it keeps."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from ros_vla_accel.control.robot_config import load_robot
from ros_vla_accel.kinematics.action_motion import ActionMotion
from ros_vla_accel.kinematics.fk import ForwardKinematics
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.precision import MotionPrecision, PrecisionConfig
from ros_vla_accel.resources import existing_path

NAMES = tuple(f"right_j{index}" for index in range(7))
HORIZON, REPLAN_ROWS = 16, 8


def controller() -> MotionPrecision:
    """By forward kinematics of the simulated Sawyer, with its actions as plan; without Pinocchio
    or the simulator in joint space, with joint velocities as plan."""
    config = PrecisionConfig()
    try:
        from ros_vla_accel.sim.urdf import sawyer_urdf

        robot = load_robot(existing_path("metaworld_sawyer", "config/robots"))
        precision = MotionPrecision(config, "fk", robot.action_motion(config.period_s), "hand")
        if not precision.describe(sawyer_urdf(), NAMES):
            return precision
    except ImportError:
        pass
    joints = ActionMotion("joint_velocity", dict(enumerate(NAMES)), config.period_s, NAMES)
    return MotionPrecision(config, "joint", joints)


def microseconds(precision: MotionPrecision, samples: Sequence[JointSample]) -> float:
    """Processor time per sample, us: increments, score, table, hysteresis and look-ahead, with
    the chunks and executor states of 20 Hz control between the samples."""
    rng = np.random.default_rng(0)
    period_ns = round(precision.config.period_s * 1e9)
    chunk = rng.uniform(-0.2, 0.2, (HORIZON, len(NAMES))).astype(np.float32)
    command = chunk[0]
    due_ns, ticks = samples[0].stamp_ns, 0
    started_ns = time.thread_time_ns()
    for sample in samples:
        precision.on_sample(sample)
        if sample.stamp_ns >= due_ns:
            number, row = divmod(ticks, REPLAN_ROWS)
            if row == 0:
                precision.on_chunk(number + 1, chunk, precision.config.period_s)
            precision.on_executor_state(due_ns, True, number + 1, row, command)
            due_ns, ticks = due_ns + period_ns, ticks + 1
    return (time.thread_time_ns() - started_ns) / len(samples) / 1e3


def kept_bytes(thing: Any, seen: set[int] | None = None) -> int:
    """Bytes of an object and all that it refers to, but for types and the robot's description."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, type | ForwardKinematics):
        return 0
    seen.add(id(thing))
    size = sys.getsizeof(thing)
    parts: list[Any] = []
    if isinstance(thing, np.ndarray):
        parts = [thing.base]
    elif isinstance(thing, dict):
        parts = [*thing, *thing.values()]
    elif isinstance(thing, list | tuple | set | deque):
        parts = list(thing)
    parts.append(getattr(thing, "__dict__", None))
    return size + sum(kept_bytes(part, seen) for part in parts if part is not None)
