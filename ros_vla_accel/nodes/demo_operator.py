"""The operator of the demo, as a node: sets tasks, gives instructions, watches everything."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter as NodeParameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from ros_vla_accel.control.robot_config import load_robot
from ros_vla_accel.msg import (
    ActionChunk,
    ExecutorState,
    InferenceStats,
    LinkStats,
    PrecisionCommand,
)
from ros_vla_accel.nodes.base import CHUNK_QOS, STATE_QOS
from ros_vla_accel.nodes.convert import chunk_from_msg, to_ns
from ros_vla_accel.nodes.images import decode_raw
from ros_vla_accel.nodes.recorder import Recorder
from ros_vla_accel.nodes.recorder_node import EVENT_QOS, stack_topics
from ros_vla_accel.resources import existing_path

FRAME_PERIOD_S = 0.5
"""Simulated time between two frames of the contact sheet."""


@dataclass
class Watch:
    """What the demo has seen so far."""

    executor: ExecutorState | None = None
    inference: InferenceStats | None = None
    link: LinkStats | None = None
    status: dict[str, Any] = field(default_factory=dict)
    inference_s: dict[str, list[float]] = field(default_factory=lambda: {"edge": [], "cloud": []})
    precision: PrecisionCommand | None = None
    executed: Counter[int] = field(default_factory=Counter)  # chunks by width
    frames: list[tuple[float, np.ndarray]] = field(default_factory=list)
    real_time_factors: list[float] = field(default_factory=list)
    task_ticks: int = 0
    task_s: float = 0.0
    _mark: tuple[int, int] | None = None  # ticks and stamp at the start of the task

    def begin_task(self) -> None:
        """The control rate is that of the tasks: while a scene is reset, /clock stands still."""
        self._mark = self._now()

    def end_task(self) -> None:
        if self._mark is not None:
            (ticks, stamp_ns), (now_ticks, now_ns) = self._mark, self._now()
            self.task_ticks += now_ticks - ticks
            self.task_s += (now_ns - stamp_ns) * 1e-9
            self._mark = None

    def _now(self) -> tuple[int, int]:
        assert self.executor is not None
        return int(self.executor.ticks), to_ns(self.executor.header.stamp)

    def control_rate_hz(self) -> float:
        """Control ticks per second of the node's clock, over the tasks so far; NaN before."""
        ticks, seconds = self.task_ticks, self.task_s
        if self._mark is not None:
            (begun_ticks, begun_ns), (now_ticks, now_ns) = self._mark, self._now()
            ticks, seconds = ticks + now_ticks - begun_ticks, seconds + (now_ns - begun_ns) * 1e-9
        return ticks / seconds if seconds > 0 else float("nan")


class DemoOperator(Node):
    """Talks to the other processes over their public topics and services only."""

    def __init__(self, namespace: str) -> None:
        # Recordings are stamped in simulated time, as the messages in them are.
        sim_time = NodeParameter("use_sim_time", value=True)
        super().__init__("demo_operator", namespace=namespace, parameter_overrides=[sim_time])
        self.watch = Watch()
        self.changed = threading.Condition()
        self._instruction = self.create_publisher(String, "instruction", STATE_QOS)
        self._set_parameters = self.create_client(SetParameters, "sim_robot/set_parameters")
        self._reset = self.create_client(Trigger, "sim_robot/reset")
        self._topics = (
            (ExecutorState, "executor_state", self._on_executor, 10),
            (InferenceStats, "inference_stats", self._on_inference, 10),
            (LinkStats, "link_stats", self._on_link, 10),
            (PrecisionCommand, "precision", self._on_precision, STATE_QOS),
            (ActionChunk, "action_chunk", self._on_chunk, CHUNK_QOS),
            (String, "task_status", self._on_status, 10),
            (Image, "camera/corner2/image_raw", self._on_image, qos_profile_sensor_data),
        )
        for kind, topic, handle, qos in self._topics:
            self.create_subscription(kind, topic, handle, qos)

    def record(self, folder: Path) -> Recorder:
        """Records the stack's topics and the state of the task, in simulated time."""
        robot = load_robot(existing_path("metaworld_sawyer", "config/robots"))
        return Recorder(self, folder, [*stack_topics(robot), ("task_status", String, EVENT_QOS)])

    def instruct(self, text: str) -> None:
        self._instruction.publish(String(data=text))

    def set_task(self, task: str, timeout_s: float) -> None:
        """Puts the arm before a task, in a fresh scene. Raises TimeoutError or RuntimeError."""
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=task)
        request = SetParameters.Request(parameters=[Parameter(name="task", value=value)])
        answer = self._call(self._set_parameters, request, timeout_s)
        if not answer.results[0].successful:
            raise RuntimeError(f"sim_robot refused task '{task}': {answer.results[0].reason}")
        answer = self._call(self._reset, Trigger.Request(), timeout_s)
        if not answer.success:
            raise RuntimeError(f"sim_robot did not reset: {answer.message}")

    def wait_for(self, condition: Any, timeout_s: float) -> bool:
        """Waits until ``condition(watch)`` holds; False when it did not in time (steady clock)."""
        with self.changed:
            return self.changed.wait_for(lambda: condition(self.watch), timeout_s)

    @staticmethod
    def _call(client: Any, request: Any, timeout_s: float) -> Any:
        if not client.wait_for_service(timeout_sec=timeout_s):
            raise TimeoutError(f"service '{client.srv_name}' did not appear in {timeout_s:.0f} s")
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout_s):
            raise TimeoutError(f"service '{client.srv_name}' did not answer in {timeout_s:.0f} s")
        return future.result()

    def _note(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _on_executor(self, msg: ExecutorState) -> None:
        self.watch.executor = msg
        self._note()

    def _on_inference(self, msg: InferenceStats) -> None:
        self.watch.inference = msg
        self._note()

    def _on_link(self, msg: LinkStats) -> None:
        self.watch.link = msg
        self._note()

    def _on_precision(self, msg: PrecisionCommand) -> None:
        self.watch.precision = msg

    def _on_chunk(self, msg: ActionChunk) -> None:
        chunk = chunk_from_msg(msg)
        measured = {"edge": "total", "cloud": "round_trip"}.get(chunk.source)
        if measured is not None:
            self.watch.executed[chunk.activation_bits] += 1
            self.watch.inference_s[chunk.source].append(chunk.timings_s[measured])

    def _on_status(self, msg: String) -> None:
        self.watch.status = json.loads(msg.data)
        self.watch.status["seen_s"] = time.monotonic()
        self.watch.real_time_factors.append(float(self.watch.status["real_time_factor"]))
        self._note()

    def _on_image(self, msg: Image) -> None:
        time_s = to_ns(msg.header.stamp) * 1e-9
        frames = self.watch.frames
        if not frames or time_s - frames[-1][0] >= FRAME_PERIOD_S:
            image = decode_raw(msg.encoding, msg.height, msg.width, msg.step, msg.data)
            frames.append((time_s, image.copy()))
