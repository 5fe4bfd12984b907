"""The policy on the edge: observations in, action chunks or encoded requests out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ros_vla_accel.contracts import (
    SCHEMA_VERSION,
    InferenceRequest,
    Observation,
    Policy,
    SplitPolicy,
)
from ros_vla_accel.contracts import ActionChunk as Chunk
from ros_vla_accel.engines import EngineChoice
from ros_vla_accel.msg import (
    ActionChunk,
    ExecutorState,
    InferenceStats,
    PartitionDecision,
    PrecisionCommand,
)
from ros_vla_accel.msg import InferenceRequest as InferenceRequestMsg
from ros_vla_accel.nodes.base import CHUNK_QOS, STATE_QOS, STEADY, AccelNode, run_nodes
from ros_vla_accel.nodes.convert import chunk_from_msg, chunk_to_msg, to_ns, to_stamp
from ros_vla_accel.nodes.observer import InputError, Observer, ObserverConfig
from ros_vla_accel.nodes.policy_runner import PolicyRunner, features_of
from ros_vla_accel.nodes.policy_stats import (
    accelerate,
    cache_settings,
    tell_policy,
    tell_scheduler,
    tell_sender,
)
from ros_vla_accel.nodes.request_sender import RequestSender
from ros_vla_accel.partition.route import Decision, Route
from ros_vla_accel.partition.scheduler import (
    RequestScheduler,
    SchedulerConfig,
    StartCloud,
    StartEdge,
    Stop,
)
from ros_vla_accel.precision.width import CommandedWidth, WidthCommand

POLL_S = 0.02
FINE = ("ok", "no instruction")
HANGING_S = 2.0
"""An inference that takes longer is reported while it runs."""


class VlaPolicy(AccelNode):
    """Subscribes cameras, joint_states, instruction, precision, partition_decision,
    executor_state and action_chunk; publishes action_chunk, inference_request, inference_stats.

    The scheduler decides when to infer and where. Observations are built and encoded on one
    thread; the policy is loaded and run on another, so that callbacks and ``get_state`` are
    answered meanwhile. The width is latched when a request is made: that of the newest precision
    command, and 16 bits without one that is fresh and made for this policy.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("vla_policy", **kwargs)
        self.declare("policy", "ros_vla_accel.policies:reference", "module:factory")
        self.declare("policy_args", "", "YAML file with the factory's arguments")
        self.declare("threads", 1, "CPU threads of the policy")
        self.declare("engine", "torch", "torch, onnxruntime or tensorrt")
        self.declare("engine_dir", "", "folder that `ros-vla-accel export` wrote")
        self.declare("engine_fallback", False, "run in torch when the engine cannot be had")
        self.declare("jpeg_quality", 90, "of images sent to the cloud, 1..100")
        self.declare("moeca.enabled", False, "cache the action head's expert branches")
        self.declare("moeca.budget", 0.0, "of a full step's cost, between full steps")
        self.declare("moeca.interval", 4, "every so many denoising steps is full")
        self.declare("moeca.across", 0.0, "input drift to which a branch outlives its inference")
        self.declare("moeca.warm_start", 0.0, "share of the steps skipped by the chunk in play")
        self.declare("features_dtype", "float16", "of features sent: float32, float16 or int8")
        for item in fields(ObserverConfig):
            self.declare(item.name, item.default, "see config/edge.yaml")

    def _setup(self) -> None:
        self._robot = self.load_robot()
        self._scheduler: RequestScheduler | None = None
        self._observer: Observer | None = None
        self._sender: RequestSender | None = None
        self._policy: Policy | None = None
        self._problem = "loading the policy"
        self._input_problem = ""
        self._width = CommandedWidth()
        self._executed_bits = 16
        self._instruction = ""
        self._recent: dict[int, Chunk] = {}
        self._in_play = (0, 0)  # request id, executed rows
        self._last_s = self._head_s = float("nan")
        self._dropped = 0
        self._observing = ThreadPoolExecutor(1, "observe")
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
        self._runner = PolicyRunner(
            self.get_parameter("policy").value,
            self.get_parameter("policy_args").value,
            self.get_parameter("threads").value,
            self._on_loaded,
            self._on_answer,
            self._on_failed_answer,
            EngineChoice(
                self.get_parameter("engine").value,
                self.get_parameter("engine_dir").value,
                self.get_parameter("engine_fallback").value,
            ),
        )

    def _stop(self) -> None:
        """The arm comes to rest: what it would play on was decided by a policy now inactive."""
        if self._scheduler is not None:
            self._publish_stop(self._scheduler.stop())

    def _teardown(self) -> None:
        if hasattr(self, "_runner"):
            self._runner.close()
        if hasattr(self, "_observing"):
            self._observing.shutdown(wait=False, cancel_futures=True)
        self._policy = None

    # The policy's own thread

    def _on_loaded(self, policy: Policy) -> None:
        self._robot.check(policy.spec)
        names = ("enabled", "budget", "interval", "across", "warm_start")
        enabled, *cache, warm = (self.get_parameter(f"moeca.{n}").value for n in names)
        accelerate(policy, cache_settings(*cache) if enabled else None, warm)
        config = ObserverConfig(
            **{item.name: self.get_parameter(item.name).value for item in fields(ObserverConfig)}
        )
        self._observer = Observer(policy.spec, self._robot, self._joints.buffer, config)
        self._width.identity = policy.spec.identity
        self._sender = RequestSender(
            policy.spec.identity,
            self.get_parameter("jpeg_quality").value,
            self.get_parameter("features_dtype").value,
            self._requests.publish,
        )
        scheduler = RequestScheduler(SchedulerConfig.of_policy(policy.spec))
        if isinstance(policy, SplitPolicy):
            for features, seconds in features_of(policy):
                scheduler.on_features(features.cut, seconds)
                self._sender.note_features(features, seconds)
        self._scheduler = scheduler
        self._problem = ""
        self._policy = policy
        if tuple(policy.spec.widths) == (16,):
            self.get_logger().info(
                "this policy has no quantized layers: all activation widths run at full precision"
            )
        self.get_logger().info(f"policy {policy.spec.name} ({policy.spec.identity[:12]}) ready")

    def _on_answer(self, chunk: Chunk, seconds: float) -> None:
        self._last_s, self._head_s = seconds, chunk.timings_s.get("head", float("nan"))
        self._executed_bits = chunk.activation_bits
        self._problem = ""
        if self._scheduler.on_edge_done(chunk.request_id, self.now_ns()) and self.active:
            self._chunks.publish(chunk_to_msg(chunk))
        self._publish_stats()

    def _on_failed_answer(self, request: InferenceRequest | None, problem: str) -> None:
        self._problem = problem
        self.get_logger().error(problem, throttle_duration_sec=5.0)
        if request is not None:
            self._scheduler.on_edge_done(request.request_id, self.now_ns(), ok=False)

    def _on_features(
        self, order: StartCloud, instruction: str, request: InferenceRequest, seconds: float
    ) -> None:
        self._scheduler.on_features(order.cut, seconds)
        self._observing.submit(self._send, order, request, instruction, seconds)

    def _on_failed_features(self, order: StartCloud, problem: str) -> None:
        self._sender.drop(order.cut)
        self._scheduler.on_features_failed(order.request_id, order.cut)
        self.get_logger().error(f"no more cuts after '{order.cut}': {problem}")

    # The observations' thread

    def _observe(self, order: StartEdge | StartCloud) -> None:
        try:
            observation = self._observer.observe(self._instruction, self.now_ns())
            request = self._request(order, observation)
            if isinstance(order, StartEdge):
                self._runner.infer(request)
            elif order.cut == "observation":
                self._send(order, request, observation.instruction, 0.0)
            else:
                self._runner.encode(
                    request,
                    order.cut,
                    partial(self._on_features, order, observation.instruction),
                    partial(self._on_failed_features, order),
                )
        except InputError as error:
            self._dropped += 1
            self._fail(order, str(error))
        except Exception as error:  # Not reported, it would leave the request open for ever.
            self._fail(order, f"no request made: {type(error).__name__}: {error}")

    def _send(
        self, order: StartCloud, request: InferenceRequest, instruction: str, computed_s: float
    ) -> None:
        try:
            self._sender.send(request, order.deadline_ns, order.encoding, instruction, computed_s)
        except Exception as error:  # As in _observe.
            self._fail(order, f"no request made: {type(error).__name__}: {error}")

    def _request(
        self, order: StartEdge | StartCloud, observation: Observation
    ) -> InferenceRequest:
        playing, executed = self._in_play
        return InferenceRequest(
            observation=observation,
            request_id=order.request_id,
            episode_id=order.episode_id,
            seed=order.request_id,
            activation_bits=self._width.bits(time.monotonic_ns()),
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
        self._poll()

    def _on_precision(self, msg: PrecisionCommand) -> None:
        command = WidthCommand(
            int(msg.schema_version),
            int(msg.activation_bits),
            msg.policy,
            to_ns(msg.needed_from),
        )
        self._width.take(command, time.monotonic_ns())
        self._poll()

    def _on_decision(self, msg: PartitionDecision) -> None:
        if self._scheduler is None or msg.schema_version != SCHEMA_VERSION:
            return
        if not 0 < msg.deadline_s < 60:
            raise ValueError(f"partition_decision has deadline_s {msg.deadline_s}")
        if msg.cut not in self._scheduler.cuts:
            self.get_logger().warning(
                f"this policy cannot be cut after '{msg.cut}', whole observations are sent; set "
                f"`cut` to auto or one of {', '.join(self._scheduler.cuts)}",
                throttle_duration_sec=30.0,
            )
        self._scheduler.on_decision(
            Decision(
                route=Route(msg.route),
                valid_until_ns=to_ns(msg.valid_until),
                preempt_seq=int(msg.preempt_seq),
                cut=msg.cut,
                encoding=msg.encoding,
                deadline_s=float(msg.deadline_s),
                reason=msg.reason,
                reuse=bool(msg.reuse),
                critical=bool(msg.critical),
            )
        )

    def _on_executor_state(self, msg: ExecutorState) -> None:
        if self._scheduler is None or msg.schema_version != SCHEMA_VERSION:
            return
        self._in_play = (int(msg.request_id), int(msg.executed_rows))
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
        # Here, on the callbacks' thread: an instruction may come while the policy is loading.
        if self._scheduler.on_instruction(self._instruction):
            self.get_logger().info(f"instruction: '{self._instruction}'")
        steady_ns = time.monotonic_ns()
        self._scheduler.on_width(self._width.bits(steady_ns), self._width.needed_ns(steady_ns))
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
                self._publish_stop(order)
            else:
                self._observing.submit(self._observe, order)

    def _publish_stop(self, order: Stop) -> None:
        spec = self._policy.spec
        rows = np.zeros((0, len(spec.action_names)), np.float32)
        ids = (order.request_id, order.episode_id)
        stop = Chunk(rows, spec.period_s, self.now_ns(), *ids, source="stop")
        self._chunks.publish(chunk_to_msg(stop))

    def _status(self) -> str:
        problem = self._problem or self._input_problem
        if problem or self._scheduler is None:
            return problem
        if self._runner.busy_s > HANGING_S:
            return f"an edge inference has been running for {self._runner.busy_s:.0f} s"
        now_ns = time.monotonic_ns()
        status = self._scheduler.status(now_ns)
        return (self._width.problem(now_ns) or status) if status in FINE else status

    def _publish_stats(self) -> None:
        if not self.active:
            return
        msg = InferenceStats(
            schema_version=SCHEMA_VERSION,
            dropped_inputs=self._dropped + sum(self._joints.reader.rejected.values()),
            last_ms=self._last_s * 1e3,
            head_ms=self._head_s * 1e3,
            activation_bits_commanded=self._width.bits(time.monotonic_ns()),
            activation_bits_executed=self._executed_bits,
            policy=self.get_parameter("policy").value,
            status=self._status(),
        )
        msg.header.stamp = to_stamp(self.now_ns())
        tell_policy(msg, self._policy)
        if self._sender is not None:
            tell_sender(msg, self._sender)
        if self._scheduler is not None:
            tell_scheduler(msg, self._scheduler)
        self._stats.publish(msg)

    def diagnosis(self) -> tuple[int, str, dict[str, Any]]:
        status = self._status()
        level = self.OK if status in FINE else self.WARN
        if self._width.mismatch or "not loaded" in status or "raised" in status:
            level = self.ERROR
        counts = self._scheduler.counts if self._scheduler else {}
        return level, status, {**counts, "joint_states": self._joints.error or "ok"}


def main(args: Sequence[str] | None = None) -> int:
    return run_nodes(lambda: [VlaPolicy()], args)
