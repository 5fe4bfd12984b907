"""The policy on the edge: observations in, action chunks or encoded requests out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ros_vla_accel.cloud.codec import encode_observation, request_header
from ros_vla_accel.contracts import SCHEMA_VERSION, InferenceRequest, Observation, Policy
from ros_vla_accel.contracts import ActionChunk as Chunk
from ros_vla_accel.msg import (
    ActionChunk,
    ExecutorState,
    InferenceStats,
    PartitionDecision,
    PrecisionCommand,
)
from ros_vla_accel.msg import InferenceRequest as InferenceRequestMsg
from ros_vla_accel.nodes.base import CHUNK_QOS, STATE_QOS, STEADY, AccelNode, run_nodes
from ros_vla_accel.nodes.convert import (
    chunk_from_msg,
    chunk_to_msg,
    request_to_msg,
    to_ns,
    to_stamp,
)
from ros_vla_accel.nodes.observer import InputError, Observer, ObserverConfig
from ros_vla_accel.partition.route import Decision, Route
from ros_vla_accel.partition.scheduler import (
    RequestScheduler,
    SchedulerConfig,
    StartCloud,
    StartEdge,
    Stop,
)
from ros_vla_accel.policies.loader import load_policy

POLL_S = 0.02


class VlaPolicy(AccelNode):
    """Subscribes cameras, joint_states, instruction, precision, partition_decision,
    executor_state and action_chunk; publishes action_chunk, inference_request, inference_stats.

    The scheduler decides when to infer and where. Observations are built and encoded on one
    thread; the policy is loaded and run on another, so that callbacks and ``get_state`` are
    answered meanwhile. The width is latched when a forward pass starts.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("vla_policy", **kwargs)
        self.declare("policy", "ros_vla_accel.policies:reference", "module:factory")
        self.declare("policy_args", "", "YAML file with the factory's arguments")
        self.declare("threads", 1, "CPU threads of the policy")
        self.declare("jpeg_quality", 90, "of images sent to the cloud, 1..100")
        for item in fields(ObserverConfig):
            self.declare(item.name, item.default, "see config/edge.yaml")

    def _setup(self) -> None:
        self._robot = self.load_robot()
        self._scheduler: RequestScheduler | None = None
        self._observer: Observer | None = None
        self._policy: Policy | None = None
        self._problem = "loading the policy"
        self._input_problem = ""
        self._bits = 16
        self._executed_bits = 16
        self._episode_of_policy = -1
        self._instruction = ""
        self._recent: dict[int, Chunk] = {}
        self._in_play = (0, 0)  # request id, executed rows
        self._last_s = float("nan")
        self._bytes_sent = 0
        self._dropped = 0
        self._observing = ThreadPoolExecutor(1, "observe")
        self._inferring = ThreadPoolExecutor(1, "infer")
        self._joints = self.joint_input(self._robot)
        self._chunks = self.publisher(ActionChunk, "action_chunk", CHUNK_QOS)
        self._requests = self.publisher(InferenceRequestMsg, "inference_request", CHUNK_QOS)
        self._stats = self.publisher(InferenceStats, "inference_stats", 10)
        for camera, topic in self._robot.cameras.items():
            kind = CompressedImage if topic.endswith("compressed") else Image
            on_image = partial(self._on_image, camera)
            self.subscribe(kind, topic, on_image, qos_profile_sensor_data)
        self.subscribe(String, "instruction", self._on_instruction, STATE_QOS)
        self.subscribe(PrecisionCommand, "precision", self._on_precision, STATE_QOS)
        self.subscribe(PartitionDecision, "partition_decision", self._on_decision, STATE_QOS)
        self.subscribe(ExecutorState, "executor_state", self._on_executor_state, 10)
        self.subscribe(ActionChunk, "action_chunk", self._on_chunk, CHUNK_QOS)
        self.every(POLL_S, self._poll, clock=STEADY)
        self.every(1.0, self._publish_stats, clock=STEADY)
        self._inferring.submit(self._load)

    def _teardown(self) -> None:
        for pool in ("_observing", "_inferring"):
            if hasattr(self, pool):
                getattr(self, pool).shutdown(wait=True, cancel_futures=True)
        self._policy = None

    # The policy's own thread

    def _load(self) -> None:
        name = self.get_parameter("policy").value
        started_s = time.monotonic()
        try:
            policy = load_policy(name, self.get_parameter("policy_args").value or {})
            self._robot.check(policy.spec)
        except Exception as error:  # A user's factory may raise anything; the node reports it.
            self._problem = f"policy '{name}' not loaded: {error}"
            return
        if "torch" in sys.modules:
            # OpenMP keeps the number per calling thread, so it is set on this one.
            sys.modules["torch"].set_num_threads(self.get_parameter("threads").value)
        config = ObserverConfig(
            **{item.name: self.get_parameter(item.name).value for item in fields(ObserverConfig)}
        )
        self._scheduler = RequestScheduler(SchedulerConfig.of_policy(policy.spec))
        self._scheduler.on_instruction(self._instruction)
        self._observer = Observer(policy.spec, self._robot, self._joints.buffer, config)
        self._policy = policy
        self._problem = ""
        if tuple(policy.spec.widths) == (16,):
            self.get_logger().info(
                "this policy has no quantized layers: all activation widths run at full precision"
            )
        self.get_logger().info(
            f"policy {policy.spec.name} ({policy.spec.checkpoint_hash[:12]}) ready "
            f"in {time.monotonic() - started_s:.1f} s"
        )

    def _infer(self, order: StartEdge, observation: Observation) -> None:
        if self._episode_of_policy != order.episode_id:
            self._policy.reset(order.episode_id)
            self._episode_of_policy = order.episode_id
        request = self._request(order, observation)
        started_s = time.monotonic()
        try:
            chunk = self._policy.infer([request])[0]
        except Exception as error:  # A user's policy may raise anything; the arm then holds.
            self._fail(order, f"policy raised {type(error).__name__}: {error}")
            return
        self._last_s = time.monotonic() - started_s
        timings_s = {**chunk.timings_s, "total": self._last_s}
        chunk = replace(chunk, source="edge", timings_s=timings_s)
        self._executed_bits = chunk.activation_bits
        self._problem = ""
        if self._scheduler.on_edge_done(order.request_id, self.now_ns()) and self.active:
            self._chunks.publish(chunk_to_msg(chunk))
        self._publish_stats()

    # The observations' thread

    def _observe(self, order: StartEdge | StartCloud) -> None:
        try:
            observation = self._observer.observe(self._instruction, self.now_ns())
        except InputError as error:
            self._dropped += 1
            self._fail(order, str(error))
            return
        if isinstance(order, StartEdge):
            self._inferring.submit(self._infer, order, observation)
            return
        try:
            tensors, data = encode_observation(
                observation, order.encoding, self.get_parameter("jpeg_quality").value
            )
            request = self._request(order, observation)
            header = request_header(request, tensors, self._policy.spec.checkpoint_hash)
        except ValueError as error:
            self._fail(order, f"request not encoded: {error}")
            return
        self._bytes_sent += len(data)
        self._requests.publish(request_to_msg(header, order.deadline_ns, data))

    def _request(
        self, order: StartEdge | StartCloud, observation: Observation
    ) -> InferenceRequest:
        playing, executed = self._in_play
        return InferenceRequest(
            observation=observation,
            request_id=order.request_id,
            episode_id=order.episode_id,
            seed=order.request_id,
            activation_bits=self._bits,
            deadline_ns=order.deadline_ns if isinstance(order, StartCloud) else 0,
            previous=self._recent.get(playing),
            executed_rows=executed,
        )

    def _fail(self, order: StartEdge | StartCloud, problem: str) -> None:
        self._problem = problem
        self.get_logger().warning(problem, throttle_duration_sec=5.0)
        if isinstance(order, StartEdge):
            self._scheduler.on_edge_done(order.request_id, self.now_ns(), ok=False)
        else:
            self._scheduler.on_cloud_failed(order.request_id)

    # Callbacks

    def _on_image(self, camera: str, msg: Any) -> None:
        if self._observer is not None:
            self._observer.on_image(camera, msg)

    def _on_instruction(self, msg: String) -> None:
        self._instruction = msg.data.strip()
        if self._scheduler is not None and self._scheduler.on_instruction(self._instruction):
            self.get_logger().info(f"instruction: '{self._instruction}'")
            self._poll()

    def _on_precision(self, msg: PrecisionCommand) -> None:
        self._bits = int(msg.activation_bits)

    def _on_decision(self, msg: PartitionDecision) -> None:
        if self._scheduler is None or msg.schema_version != SCHEMA_VERSION:
            return
        self._scheduler.on_decision(
            Decision(
                route=Route(msg.route),
                valid_until_ns=to_ns(msg.valid_until),
                preempt_seq=int(msg.preempt_seq),
                cut=msg.cut,
                encoding=msg.encoding,
                deadline_s=float(msg.deadline_s),
                reason=msg.reason,
            )
        )

    def _on_executor_state(self, msg: ExecutorState) -> None:
        self._in_play = (int(msg.request_id), int(msg.executed_rows))
        if self._scheduler is None:
            return
        self._scheduler.on_executor_state(
            time.monotonic_ns(),
            int(msg.episode_id),
            int(msg.request_id),
            to_ns(msg.chunk_stamp),
            int(msg.state),
        )
        self._poll()

    def _on_chunk(self, msg: ActionChunk) -> None:
        if self._scheduler is None:
            return
        try:
            chunk = chunk_from_msg(msg)
        except ValueError as error:
            self.get_logger().warning(f"chunk ignored: {error}", throttle_duration_sec=5.0)
            return
        self._recent[chunk.request_id] = chunk
        while len(self._recent) > 4:
            del self._recent[next(iter(self._recent))]
        self._scheduler.on_chunk(chunk, self.now_ns())

    def _poll(self) -> None:
        if not self.active or self._policy is None:
            return
        now_ns = self.now_ns()
        observation_ns = None
        self._input_problem = ""
        if self._instruction:
            try:
                observation_ns = self._observer.newest_stamp_ns(now_ns)
            except InputError as error:
                self._input_problem = str(error)
        while order := self._scheduler.poll(now_ns, time.monotonic_ns(), observation_ns):
            if isinstance(order, Stop):
                self._publish_stop(order, now_ns)
            else:
                self._observing.submit(self._observe, order)

    def _publish_stop(self, order: Stop, now_ns: int) -> None:
        period_s = self._policy.spec.period_s
        rows = np.zeros((0, len(self._policy.spec.action_names)), np.float32)
        self._chunks.publish(
            chunk_to_msg(
                Chunk(rows, period_s, now_ns, order.request_id, order.episode_id, source="stop")
            )
        )

    def _status(self) -> str:
        problem = self._problem or self._input_problem
        if problem or self._scheduler is None:
            return problem
        return self._scheduler.status(time.monotonic_ns())

    def _publish_stats(self) -> None:
        if not self.active:
            return
        msg = InferenceStats(
            schema_version=SCHEMA_VERSION,
            dropped_inputs=self._dropped + sum(self._joints.reader.rejected.values()),
            last_ms=self._last_s * 1e3,
            bytes_sent=self._bytes_sent,
            activation_bits_commanded=self._bits,
            activation_bits_executed=self._executed_bits,
            policy=self.get_parameter("policy").value,
            status=self._status(),
        )
        msg.header.stamp = to_stamp(self.now_ns())
        if self._scheduler is not None:
            counts = self._scheduler.counts
            msg.episode_id = self._scheduler.episode_id
            msg.inferences_edge = counts["inferences_edge"]
            msg.requests_cloud = counts["requests_cloud"]
            msg.replies_cloud = counts["replies_cloud"]
            msg.fallbacks_edge = counts["fallbacks_edge"]
            msg.edge_p50_ms = self._scheduler.edge_latency.p50_s * 1e3
            msg.edge_p95_ms = self._scheduler.edge_latency.p95_s * 1e3
        self._stats.publish(msg)

    def diagnosis(self) -> tuple[int, str, dict[str, Any]]:
        status = self._status()
        level = self.OK if status in ("ok", "no instruction") else self.WARN
        if "not loaded" in status or "raised" in status:
            level = self.ERROR
        counts = self._scheduler.counts if self._scheduler else {}
        return level, status, {**counts, "joint_states": self._joints.error or "ok"}


def main(args: Sequence[str] | None = None) -> int:
    return run_nodes(lambda: [VlaPolicy()], args)
