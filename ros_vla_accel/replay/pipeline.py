"""A recording through the classes that the nodes use, as fast as the machine goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ros_vla_accel.contracts import SCHEMA_VERSION, ExecutorCode
from ros_vla_accel.control.robot_config import RobotConfig
from ros_vla_accel.kinematics.intake import JointIntake
from ros_vla_accel.kinematics.joints import JointSample, JointStateError
from ros_vla_accel.partition.link import LinkState
from ros_vla_accel.partition.route import RouteConfig
from ros_vla_accel.partition.triggers import TriggerConfig
from ros_vla_accel.precision import PrecisionConfig
from ros_vla_accel.replay import events, topics
from ros_vla_accel.replay.bag import FOREVER_NS, Bag
from ros_vla_accel.replay.channel import Channel, DefinitionError
from ros_vla_accel.replay.decider import Decider, PeriodDecision, preemption
from ros_vla_accel.replay.fields import FieldMap, JointFields
from ros_vla_accel.replay.inference import RecordedInference
from ros_vla_accel.replay.pictures import CameraClock, decode, reduced
from ros_vla_accel.replay.quality import QualityCheck
from ros_vla_accel.replay.run import DECISION_COLUMNS, SAMPLE_COLUMNS, Frame, Run
from ros_vla_accel.replay.series import Series


class ReplayError(ValueError):
    """The recording cannot be replayed as asked; the text says why and what to change."""


@dataclass(frozen=True)
class ReplayConfig:
    """How to read a recording.

    remaps: our topic -> recorded topic. fields: of the joint states' type. joints: by name, in
    order; empty: the robot's, or all that the first message names. start_s, duration_s: part of
    the recording, from its start. precision, triggers, route, source: as the nodes' parameters.
    link: "recorded" follows the link_stats in the bag (healthy until the first), "healthy" and
    "down" do not. policy, policy_args: also infer on the recorded images; instruction: its task,
    empty for the recorded one. frames: images kept per camera for a strip. msg_folder: .msg
    files of types that the bag does not define.
    """

    remaps: dict[str, str] = field(default_factory=dict)
    fields: FieldMap = field(default_factory=FieldMap)
    joints: tuple[str, ...] = ()
    robot: RobotConfig | None = None
    start_s: float = 0.0
    duration_s: float = float("inf")
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    triggers: TriggerConfig = field(default_factory=TriggerConfig)
    route: RouteConfig = field(default_factory=RouteConfig)
    source: str = "auto"
    link: str = "recorded"
    policy: str = ""
    policy_args: str = ""
    instruction: str = ""
    frames: int = 0
    msg_folder: Path | None = None

    def __post_init__(self) -> None:
        if self.link not in ("recorded", "healthy", "down"):
            raise ValueError(f"link is '{self.link}'; choose from recorded, healthy, down")
        if self.start_s < 0 or not self.duration_s > 0:
            raise ValueError("start must not be negative, and the duration must be positive")
        if self.policy and self.robot is None:
            raise ValueError("a policy needs a robot YAML, which maps cameras and joints to it")

    def decider(self) -> Decider:
        """Decides as the nodes do; the plan counts where the robot says what its rows mean.

        Raises ValueError for a source of motion that cannot be had.
        """
        motion = None
        if self.robot:
            with suppress(ValueError):  # Actions that move nothing known: as in the node.
                motion = self.robot.action_motion(self.precision.period_s)
        tip = self.robot.tip_frame if self.robot else ""
        return Decider(self.precision, self.triggers, self.route, self.source, tip, motion)


def replay(
    bag: str | Path,
    config: ReplayConfig | None = None,
    on_decision: Callable[[dict[str, Any]], None] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Run:
    """Replays a recording. on_decision: takes each decision as it is made, in order.
    on_progress: is told the share done, 0..1, now and then.

    Raises FileNotFoundError, BagError, TopicError, DefinitionError, FieldMapError or ReplayError,
    all ValueErrors but the first.
    """
    config = config or ReplayConfig()
    with Bag(bag, config.msg_folder) as source:
        try:
            return _Replay(source, config, on_decision, on_progress).run()
        except (topics.TopicError, ReplayError) as error:
            if not source.damage:
                raise
            raise ReplayError(f"{error}; {'; '.join(source.damage)}") from None


class _Replay:
    """One pass over a bag."""

    def __init__(
        self,
        bag: Bag,
        config: ReplayConfig,
        on_decision: Callable[[dict[str, Any]], None] | None,
        on_progress: Callable[[float], None] | None,
    ) -> None:
        self._bag = bag
        self._config = config
        self._on_decision = on_decision
        self._on_progress = on_progress
        self._start_ns = bag.start_ns + round(config.start_s * 1e9)
        long = config.duration_s > (bag.end_ns - self._start_ns) * 1e-9
        self._stop_ns = FOREVER_NS if long else self._start_ns + round(config.duration_s * 1e9)
        self._result = Run(str(bag.path), bag.start_ns)
        self._result.thresholds = {
            "theta_fp": config.precision.theta_fp,
            "theta_compat": config.triggers.theta_compat,
            "theta_redundancy": config.triggers.theta_redundancy,
        }
        self._quality = QualityCheck(self._result.quality)
        try:
            self._decider = config.decider()
        except ValueError as error:
            raise ReplayError(str(error)) from None
        if config.link == "down":
            self._decider.health = LinkState.DOWN
        self._read_fields = config.fields.reader()
        self._intake: JointIntake | None = None
        self._samples = Series(SAMPLE_COLUMNS)
        self._decisions = Series(DECISION_COLUMNS)
        self._preemptions: list[float] = []
        self._events = events.EventLog()
        self._clocks: dict[str, CameraClock] = {}
        self._frames_due: dict[str, int] = {}
        self._late_ns = 0
        self._inference: RecordedInference | None = None
        if config.policy and config.robot:
            self._inference = RecordedInference(
                config.policy, config.policy_args, config.robot, config.instruction
            )
        self._handlers = self._route_topics()

    def run(self) -> Run:
        result = self._result
        began_s = time.perf_counter()
        received_ns = self._start_ns
        span_ns = max(1, min(self._stop_ns, self._bag.end_ns) - self._start_ns)
        messages = self._bag.messages(self._handlers, self._start_ns, self._stop_ns)
        for channel, received_ns, data in messages:
            result.messages += 1
            self._take(channel, received_ns, data)
            if self._on_progress and result.messages % 1000 == 0:
                self._on_progress((received_ns - self._start_ns) / span_ns)
        result.duration_s = max(0, received_ns - self._start_ns) * 1e-9
        result.wall_s = time.perf_counter() - began_s
        self._finish()
        if not result.quality.samples:
            raise ReplayError(
                f"no joint state of '{result.bag}' could be used: "
                + (self._first_refusal or "there is none in the part that was read")
            )
        return result

    _first_refusal = ""

    def _route_topics(self) -> dict[str, Callable[[Channel, int, Any], None]]:
        """Recorded topic -> what takes its messages."""
        config, known = self._config, self._bag.topics
        handlers: dict[str, Callable[[Channel, int, Any], None]] = {
            topic: self._on_event for topic, kind in known.items() if kind in events.KINDS
        }
        description = topics.find(known, "robot_description", config.remaps, (topics.STRING,))
        if description and config.source != "joint":
            handlers[description] = self._on_description
        if config.frames or self._inference:
            handlers |= {t: self._on_image for t, kind in known.items() if kind in topics.IMAGES}
        if self._inference and config.robot:
            self._inference.find_topics(known, config.remaps)
            task = topics.find(known, "instruction", config.remaps, (topics.STRING,))
            if task and not config.instruction:
                handlers[task] = self._on_instruction
        wanted = config.robot.joint_states if config.robot else "joint_states"
        joints = topics.find_joint_states(
            known, wanted, config.remaps, mapped=config.fields != FieldMap()
        )
        handlers[joints] = self._on_joints
        return handlers

    def _take(self, channel: Channel, received_ns: int, data: bytes) -> None:
        try:
            msg = self._bag.decode(channel, data)
        except DefinitionError:
            raise
        except Exception:  # Bytes that do not fit their definition fail in any way.
            self._result.quality.counts["undecodable"] += 1
            return
        self._handlers[channel.topic](channel, received_ns, msg)

    def _on_joints(self, channel: Channel, received_ns: int, msg: Any) -> None:
        fields = self._read_fields(msg)
        if self._intake is None:
            names = self._names(fields)
            if not names:
                self._refuse(fields, received_ns, _NO_NAMES)
                return
            self._intake = JointIntake(names)
            self._result.joint_names = names
        offset_ns = self._intake.alignment.offset_ns
        try:
            sample = self._intake.take(*fields, received_ns)
        except JointStateError as error:
            self._refuse(fields, received_ns, error)
            return
        self._quality.note(fields, received_ns)
        self._late_ns = received_ns - sample.stamp_ns
        if self._intake.alignment.offset_ns != offset_ns:
            self._note_offset(channel.topic, self._intake.alignment.offset_ns * 1e-9)
        if self._inference:
            self._inference.on_sample(sample)
        if self._intake.settled:
            self._decide(sample)

    def _refuse(self, fields: JointFields, received_ns: int, error: JointStateError) -> None:
        self._first_refusal = self._first_refusal or str(error)
        self._quality.note(fields, received_ns, error)

    def _names(self, fields: JointFields) -> tuple[str, ...]:
        config = self._config
        if config.joints or config.robot is None:
            return config.joints or tuple(dict.fromkeys(fields.name))
        return config.robot.joint_names

    def _decide(self, sample: JointSample) -> None:
        signals, preempt, periods = self._decider.take(sample)
        t_s = self._seconds(sample.stamp_ns)
        speed = float(np.sqrt(sample.velocity @ sample.velocity))
        self._samples.append(t_s, (speed, *signals[1:8]))
        if preempt:
            self._preemptions.append(t_s)
            self._tell(preemption(signals, self._decider.preempt_seq))
        for period in periods:
            self._keep(period)
        if self._inference:
            chunk = self._inference.poll(
                sample.stamp_ns, self._decider.bits, self._decider.preempt_seq
            )
            if chunk is not None:
                self._tell(chunk)

    def _keep(self, period: PeriodDecision) -> None:
        precision = period.precision
        self._decisions.append(
            self._seconds(period.stamp_ns),
            (
                precision.fineness,
                precision.jerk,
                precision.sensitivity,
                precision.bits,
                period.route.importance,
                period.route.route,
                period.route.preempt_seq,
            ),
        )
        self._tell(period.as_dict())

    def _tell(self, decision: dict[str, Any]) -> None:
        self._result.decision_count += 1
        if self._on_decision:
            self._on_decision(decision)

    def _on_event(self, channel: Channel, received_ns: int, msg: Any) -> None:
        self._events.take(channel.msgtype, msg, self._seconds(self._moment_ns(received_ns, msg)))
        if self._config.link == "recorded" and channel.msgtype.endswith("/LinkStats"):
            self._decider.health = LinkState(int(msg.health))
        if getattr(msg, "schema_version", None) != SCHEMA_VERSION:
            return
        if channel.msgtype.endswith("/ActionChunk"):
            self._on_chunk(msg)
        elif channel.msgtype.endswith("/ExecutorState"):
            self._on_executor_state(received_ns, msg)

    def _on_chunk(self, msg: Any) -> None:
        rows = np.asarray(msg.actions)
        if rows.size == msg.horizon * msg.action_size:
            shaped = rows.reshape(msg.horizon, msg.action_size)
            self._decider.on_chunk(int(msg.request_id), shaped, float(msg.period_s))

    def _on_executor_state(self, received_ns: int, msg: Any) -> None:
        periods = self._decider.on_executor_state(
            self._stamped_ns(received_ns, msg),
            msg.state == ExecutorCode.PLAYING,
            int(msg.request_id),
            int(msg.row),
            msg.command,
        )
        for period in periods:
            self._keep(period)

    def _on_description(self, channel: Channel, received_ns: int, msg: Any) -> None:
        names = self._config.joints
        if not names and self._config.robot:
            names = self._config.robot.joint_names
        problem = self._decider.describe(msg.data, names or self._result.joint_names)
        if problem and problem not in self._result.quality.notes:
            self._result.quality.notes.append(problem)

    def _on_instruction(self, channel: Channel, received_ns: int, msg: Any) -> None:
        assert self._inference
        self._inference.instruct(msg.data)

    def _on_image(self, channel: Channel, received_ns: int, msg: Any) -> None:
        clock = self._clocks.setdefault(channel.topic, CameraClock())
        stamp_ns = clock.stamp_ns(msg, received_ns)
        if self._inference:
            self._inference.on_image(channel.topic, stamp_ns, msg)
        taken = self._frames_due.get(channel.topic, 0)
        span_ns = min(self._stop_ns, self._bag.end_ns) - self._start_ns
        due_ns = self._start_ns + (2 * taken + 1) * span_ns // (2 * max(1, self._config.frames))
        if taken >= self._config.frames or received_ns < due_ns:
            return
        self._frames_due[channel.topic] = taken + 1
        try:
            image = reduced(decode(msg))
        except ValueError:
            self._result.quality.counts["undecodable"] += 1
            return
        t_s = self._seconds(self._moment_ns(received_ns, msg))
        self._result.frames.append(Frame(channel.topic, t_s, image))

    def _moment_ns(self, received_ns: int, msg: Any) -> int:
        """When it happened, on the time axis of the joint states: by its stamp if their clock
        stamped it (simulated time stands still now and then, and arrivals go on), else when it
        arrived."""
        aligned_ns = self._stamped_ns(received_ns, msg)
        if aligned_ns == _stamp_ns(msg):
            return received_ns
        # A chunk has the stamp of its observation, and comes later.
        return received_ns - self._late_ns if hasattr(msg, "horizon") else aligned_ns

    def _stamped_ns(self, received_ns: int, msg: Any) -> int:
        """The stamp, moved as those of the joint states are if their clock made it."""
        stamp_ns = _stamp_ns(msg)
        aligned_ns = stamp_ns + (self._intake.alignment.offset_ns if self._intake else 0)
        theirs = abs(received_ns - aligned_ns) <= abs(received_ns - stamp_ns)
        return aligned_ns if theirs else stamp_ns

    def _seconds(self, stamp_ns: int) -> float:
        return (stamp_ns - self._bag.start_ns) * 1e-9

    def _note_offset(self, topic: str, offset_s: float) -> None:
        quality = self._result.quality
        quality.offsets_s[topic] = offset_s
        quality.notes.append(
            f"'{topic}': header stamps differ from the receive stamps by {-offset_s:+.3f} s; "
            "aligned by receive time"
        )

    def _finish(self) -> None:
        result = self._result
        for topic, clock in self._clocks.items():
            if clock.offset_s:
                self._note_offset(topic, clock.offset_s)
        result.samples = self._samples.table()
        result.decisions = self._decisions.table()
        result.preemptions_s = np.array(self._preemptions)
        result.events = self._events.tables(self._bag.start_ns * 1e-9)
        if self._inference:
            result.inferences = self._inference.table(self._bag.start_ns)
        result.quality.counts["damaged_file"] += len(self._bag.damage)
        result.quality.notes += self._bag.damage
        result.source = self._decider.source


def _stamp_ns(msg: Any) -> int:
    stamp = msg.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


_NO_NAMES = JointStateError(
    "names", "joint_states has no joint names; give them as `names` in a field mapping (--fields)"
)
