"""Decides where the next inference runs, and relays requests to the cloud worker (RAPID)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ros_vla_accel.cloud.client import CloudClient
from ros_vla_accel.cloud.keys import KeyFolder
from ros_vla_accel.contracts import SCHEMA_VERSION
from ros_vla_accel.contracts import ActionChunk as Chunk
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.msg import (
    ActionChunk,
    InferenceRequest,
    InferenceStats,
    LinkStats,
    PartitionDecision,
)
from ros_vla_accel.nodes.base import CHUNK_QOS, STATE_QOS, STEADY, AccelNode, run_nodes
from ros_vla_accel.nodes.convert import chunk_to_msg, header_from_msg, to_ns, to_stamp
from ros_vla_accel.partition.dispatcher import Dispatcher
from ros_vla_accel.partition.link import LinkState
from ros_vla_accel.partition.route import RouteConfig, RouteDecider
from ros_vla_accel.partition.split_planner import FormCost, PlannerConfig, SplitPlanner
from ros_vla_accel.partition.triggers import TriggerConfig, Triggers, TriggerSignals
from ros_vla_accel.precision import Calibration
from ros_vla_accel.resources import existing_path

_LINK_FIELDS = (
    "endpoint",
    "round_trip_ms",
    "round_trip_p95_ms",
    "bandwidth_mbps",
    "worker_p50_ms",
    "requests",
    "replies",
    "expired",
    "rejected",
    "bytes_sent",
    "bytes_received",
    "worker",
    "reason",
)


class PartitionManager(AccelNode):
    """Subscribes joint_states, inference_request and inference_stats; publishes
    partition_decision, action_chunk (from the cloud) and link_stats.

    A calibration's trigger settings replace those of the parameters.

    A decision is published five times per validity, and at once when a joint sample preempts the
    running chunk. The ZeroMQ client has its own thread; nothing here waits for the network.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("partition_manager", **kwargs)
        self.declare("cloud_endpoint", "tcp://127.0.0.1:5555", "ZeroMQ endpoint of the worker")
        self.declare("cloud_keys", "", "folder of robot.key and worker.pub; empty: the user's")
        self.declare("cloud_security", "curve", "curve, insecure or insecure-any")
        for item in fields(RouteConfig):
            name = "route" if item.name == "mode" else item.name
            self.declare(name, item.default, "see config/edge.yaml")
        for item in fields(TriggerConfig):
            self.declare(item.name, item.default, "see config/edge.yaml")
        self.declare("cut", PlannerConfig.cut, "auto, observation, vision or backbone")
        self.declare("encoding", PlannerConfig.encoding, "of images: auto, raw, jpeg or png")
        self.declare("calibration", "", "YAML of `calibrate`: a path, or a name in the package")
        self._client: CloudClient | None = None

    def _setup(self) -> None:
        self._planner = SplitPlanner(
            PlannerConfig(self.get_parameter("cut").value, self.get_parameter("encoding").value)
        )
        settings = {item.name: item.name for item in fields(RouteConfig)} | {"mode": "route"}
        config = RouteConfig(
            **{key: self.get_parameter(name).value for key, name in settings.items()}
        )
        self._sent = (0, "")  # request id, form
        triggers = TriggerConfig(
            **{item.name: self.get_parameter(item.name).value for item in fields(TriggerConfig)}
        )
        calibration = self.get_parameter("calibration").value
        if calibration:
            found = Calibration.load(existing_path(calibration, "config/calibration"))
            triggers = triggers.calibrated(found.triggers)
        self._decider = RouteDecider(config)
        self._triggers = Triggers(triggers)
        self._dispatcher = Dispatcher(triggers)
        self._signals: TriggerSignals | None = None
        self._joints = self.joint_input(self.load_robot())
        self._refused = 0
        self._cloud_healthy = False
        self._chunks = self.publisher(ActionChunk, "action_chunk", CHUNK_QOS)
        self._decisions = self.publisher(PartitionDecision, "partition_decision", STATE_QOS)
        self._stats = self.publisher(LinkStats, "link_stats", 10)
        self.subscribe(InferenceRequest, "inference_request", self._on_request, CHUNK_QOS)
        self.subscribe(InferenceStats, "inference_stats", self._on_inference_stats, 10)
        self.listen(self._joints, self._on_sample)
        # On the steady clock, so that a decision is renewed often enough at any pace of /clock.
        self.every(config.validity_s / 5, self._decide, clock=STEADY)
        self.every(1.0, self._publish_stats, clock=STEADY)
        self._client = CloudClient(
            self.get_parameter("cloud_endpoint").value,
            "",
            on_reply=self._on_reply,
            keys=self._keys(),
            insecure_any=self.get_parameter("cloud_security").value == "insecure-any",
        )

    def _keys(self) -> KeyFolder | None:
        security = self.get_parameter("cloud_security").value
        if security not in ("curve", "insecure", "insecure-any"):
            raise ValueError(
                f"cloud_security is '{security}'; expected curve, insecure (plain text to this "
                "machine) or insecure-any (plain text to any)"
            )
        return KeyFolder(self.get_parameter("cloud_keys").value) if security == "curve" else None

    def _teardown(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _on_request(self, msg: InferenceRequest) -> None:
        if not self.active:
            return
        remaining_s = (to_ns(msg.deadline) - self.now_ns()) * 1e-9
        if remaining_s <= 0:
            return
        try:
            header = header_from_msg(msg)
        except ValueError as error:
            self._refused += 1
            self.get_logger().warning(
                f"inference_request refused: {error}", throttle_duration_sec=5.0
            )
            return
        images = (tensor.encoding for tensor in header.tensors if "/" in tensor.name)
        form = next(images, "raw") if header.cut == "observation" else header.cut
        self._sent = (header.request_id, form)
        self._client.submit(header, memoryview(msg.data), remaining_s)

    def _on_inference_stats(self, msg: InferenceStats) -> None:
        if msg.schema_version != SCHEMA_VERSION:
            return
        costs = zip(msg.form_names, msg.form_prepare_ms, msg.form_bytes, strict=False)
        self._planner.note_edge(
            {name: FormCost(float(ms) * 1e-3, int(size)) for name, ms, size in costs}
        )

    def _on_reply(self, chunk: Chunk) -> None:
        request_id, form = self._sent
        if request_id == chunk.request_id:
            self._planner.note_reply(form, chunk.timings_s)
        if self.active:
            self._chunks.publish(chunk_to_msg(chunk))

    def _on_sample(self, sample: JointSample) -> None:
        if not self.active:
            return
        signals = self._signals = self._triggers.update(sample)
        due = self._decider.note(signals)
        if self._dispatcher.update(signals):
            due |= self._decider.preempt(self.now_ns(), self._client.health)
        if due:
            self._decide()

    def _decide(self) -> None:
        if not self.active:
            return
        health = self._client.health
        if (health is LinkState.HEALTHY) != self._cloud_healthy:
            self._cloud_healthy = health is LinkState.HEALTHY
            self.get_logger().info(f"cloud {health.name.lower()} {self._client.stats().reason}")
        decision = self._decider.decide(self.now_ns(), health, self._planner.form)
        newest = self._joints.buffer.newest
        msg = PartitionDecision(
            schema_version=SCHEMA_VERSION,
            route=int(decision.route),
            cut=decision.cut,
            encoding=decision.encoding,
            preempt_seq=decision.preempt_seq,
            reuse=decision.reuse,
            critical=decision.critical,
            valid_until=to_stamp(decision.valid_until_ns),
            deadline_s=decision.deadline_s,
            importance=decision.importance,
            reason=decision.reason,
        )
        msg.header.stamp = to_stamp(newest.stamp_ns if newest else 0)
        self._decisions.publish(msg)

    def _publish_stats(self) -> None:
        if not self.active:
            return
        stats = self._client.stats()
        before = self._planner.form
        form = self._planner.plan(
            time.monotonic(), stats.round_trip_ms * 1e-3, stats.bandwidth_mbps * 1e6
        )
        if form != before:
            self.get_logger().info(f"requests leave otherwise now: {self._planner.describe()}")
        msg = LinkStats(
            schema_version=SCHEMA_VERSION,
            plan=self._planner.describe(),
            health=int(stats.health),
            **{name: getattr(stats, name) for name in _LINK_FIELDS},
        )
        msg.header.stamp = to_stamp(self.now_ns())
        self._stats.publish(msg)

    def diagnosis(self) -> tuple[int, str, dict[str, Any]]:
        stats = self._client.stats()
        # Without the cloud the edge carries on: a warning only where the user insists on it.
        wanted = self._decider.config.mode == "cloud"
        level = self.WARN if wanted and stats.health != LinkState.HEALTHY else self.OK
        message = f"route {self._decider.config.mode}, cloud {stats.health.name.lower()}"
        if stats.reason:
            message += f": {stats.reason}"
        if self._triggers.problem:
            message += f"; triggers: {self._triggers.problem}"
        values = {
            "requests_refused": self._refused,
            "trigger": self._signals.reason if self._signals else "no joint states",
            "preemptions": self._decider.preempt_seq,
            **vars(stats),
        }
        return level, message, values


def main(args: Sequence[str] | None = None) -> int:
    return run_nodes(lambda: [PartitionManager()], args)
