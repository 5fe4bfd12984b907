"""One command per control period: plays chunks, limits them, and holds when nothing is valid."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from threading import RLock

import numpy as np

from ros_vla_accel.contracts import ActionChunk, ExecutorCode
from ros_vla_accel.control.chunk_buffer import ChunkBuffer, Row, Verdict
from ros_vla_accel.control.limits import ActionLimits, Limiter
from ros_vla_accel.kinematics.joints import FloatArray, JointSample

LONGEST_WAIT_S = 2.0


@dataclass(frozen=True)
class ExecutorConfig:
    """period_s: control period. joint_timeout_s: oldest joint state that may move the arm.

    blend_rows: rows over which a new chunk is blended in. hold_ticks: a hold has stopped every
    velocity after at most so many ticks, even where max_step alone would take longer: the arm
    is moving blind meanwhile. armed: false computes everything and sends nothing.
    """

    period_s: float = 0.05
    joint_timeout_s: float = 0.25
    blend_rows: int = 3
    hold_ticks: int = 4
    armed: bool = False

    def __post_init__(self) -> None:
        for key in ("period_s", "joint_timeout_s"):
            if not 0 < getattr(self, key) <= LONGEST_WAIT_S:
                raise ValueError(
                    f"{key} is {getattr(self, key)}; it must be positive and at most "
                    f"{LONGEST_WAIT_S} s: an arm that waits longer moves blind"
                )
        if self.hold_ticks < 1 or self.blend_rows < 0:
            raise ValueError("hold_ticks must be at least 1 and blend_rows not negative")


@dataclass(frozen=True)
class Tick:
    """What one control tick did: the fields of ``ExecutorState.msg``, and whether to send.

    command: (A,) what to send; where a column never had a value it reads 0 and send is false.
    send: whether the command may leave. late_ticks: ticks that came more than half a period late.
    """

    stamp_ns: int
    state: ExecutorCode
    reason: str
    command: FloatArray
    send: bool
    armed: bool
    limited: bool
    episode_id: int
    row: int = 0
    request_id: int = 0
    chunk_stamp_ns: int = 0
    source: str = ""
    executed_rows: int = 0
    remaining_rows: int = 0
    ticks: int = 0
    starved_ticks: int = 0
    chunks_accepted: int = 0
    chunks_dropped: int = 0
    limited_ticks: int = 0
    late_ticks: int = 0
    drops: dict[str, int] = field(default_factory=dict)


class Executor:
    """The plain class behind ``action_executor``; callbacks of any thread may call it.

    The node calls ``offer`` for each action_chunk, ``tick`` once per control period on its own
    clock, and ``halt`` from a steady-clock timer when ``tick`` has stopped coming (a frozen
    ``/clock``). It sends ``Tick.command`` if ``Tick.send``.

    Faults: joint states missing, stale or ahead of the clock; a joint outside its range. A fault
    ends the chunk in play, so that only an observation made after it moves the arm again. A
    joint outside its range also latches: noise at the boundary would make the arm stutter, and a
    person who moves the joint back is next to the arm. Only arming anew unlatches, since a policy
    that merely restarts begins a newer episode too.

    A hold ramps all velocity columns to zero together (the direction stays), each by at most its
    max_step per tick but in no more than ``hold_ticks``, and keeps grippers and positions. After
    a fault, columns that command joint positions start from where the joints are then.
    """

    def __init__(self, config: ExecutorConfig, limits: ActionLimits) -> None:
        self.config = config
        self.limits = limits
        self.buffer = ChunkBuffer(limits.size, config.period_s, config.blend_rows)
        self._limiter = Limiter(limits)
        self._max_step = np.asarray(limits.max_step, dtype=np.float64)
        self._keeps = np.array([hold == "keep" for hold in limits.hold])
        measured = limits.measured_joint or (-1,) * limits.size
        self._measured = np.array([joint >= 0 for joint in measured])
        self._armed = config.armed
        self._stopping = False
        self._previous = self._unknown()
        self._hold_left = 0
        self._fault = ""
        self._latched = ""
        self._last_tick_ns: int | None = None
        self._ticks = 0
        self._starved_ticks = 0
        self._limited_ticks = 0
        self._late_ticks = 0
        self._lock = RLock()

    def _unknown(self) -> FloatArray:
        """No command yet: the arm is at rest, grippers and positions are wherever they are."""
        return np.where(self._keeps, np.nan, 0.0)

    @property
    def armed(self) -> bool:
        """Whether commands leave."""
        return self._armed

    def arm(self, armed: bool) -> None:
        """Arms or disarms. Arming starts from rest; disarming still sends the ramp to rest."""
        with self._lock:
            if armed and not self._armed:
                self._latched = ""
                if not self._stopping:  # else the arm is still moving, and must come to rest
                    self._previous = self._unknown()
            self._stopping = not armed and (self._armed or self._stopping)
            self._armed = armed

    def offer(self, chunk: ActionChunk, now_ns: int) -> Verdict:
        """Hands in a chunk whose message passed the schema check; see ``ChunkBuffer.offer``."""
        with self._lock:
            return self.buffer.offer(chunk, now_ns)

    def tick(self, now_ns: int, joints: JointSample | None) -> Tick:
        """Makes the command of this control period. joints: the newest sample, if any."""
        with self._lock:
            self._count_tick(now_ns)
            self.buffer.advance(now_ns)
            fault = self._find_fault(now_ns, joints)
            if fault:
                if not self._fault:
                    self.buffer.clear(f"a fault: {fault}", now_ns, wanted=self.buffer.wanted)
                self._fault = fault
                return self._hold(now_ns, ExecutorCode.FAULT, fault)
            if self._fault:
                self._fault = ""
                self._previous[self._measured] = np.nan
            if self._stopping:
                return self._hold(now_ns, ExecutorCode.IDLE, "disarmed: coming to rest")
            row = self.buffer.row(now_ns)
            if row is None:
                return self._starve(now_ns)
            return self._play(now_ns, row, joints)

    def halt(self, now_ns: int, reason: str) -> Tick:
        """A fault that the node noticed: holds, and ends the chunk in play."""
        with self._lock:
            self._ticks += 1
            self.buffer.clear(f"a fault: {reason}", now_ns, wanted=self.buffer.wanted)
            self._fault = reason
            return self._hold(now_ns, ExecutorCode.FAULT, reason)

    def _count_tick(self, now_ns: int) -> None:
        self._ticks += 1
        last_ns, self._last_tick_ns = self._last_tick_ns, now_ns
        if last_ns is not None and now_ns - last_ns > 1.5e9 * self.config.period_s:
            self._late_ticks += 1

    def _find_fault(self, now_ns: int, joints: JointSample | None) -> str:
        limit_s = self.config.joint_timeout_s
        if joints is None:
            return "no joint states yet; check the joint_states topic and the joint names"
        age_s = (now_ns - joints.stamp_ns) * 1e-9
        if age_s > limit_s:
            return f"joint states are {age_s:.2f} s old, more than joint_timeout_s {limit_s}"
        if age_s < -limit_s:
            return (
                f"joint states are {-age_s:.2f} s ahead of the clock; "
                "set use_sim_time alike on all nodes"
            )
        outside = self._limiter.joint_fault(joints.position)
        if outside:
            self._latched = outside
        return self._latched

    def _play(self, now_ns: int, row: Row, joints: JointSample | None) -> Tick:
        self._start_from_measured(joints)
        command, limited = self._limiter.apply(row.action, self._previous)
        self._previous = command
        self._hold_left = 0
        self._limited_ticks += limited
        reason = f"{row.chunk.source} row {row.index}"
        return self._report(now_ns, ExecutorCode.PLAYING, reason, self._armed, limited, row)

    def _start_from_measured(self, joints: JointSample | None) -> None:
        if self.limits.measured_joint is None or joints is None:
            return
        for column, joint in enumerate(self.limits.measured_joint):
            if joint >= 0 and math.isnan(self._previous[column]):
                self._previous[column] = joints.position[joint]

    def _starve(self, now_ns: int) -> Tick:
        chunk = self.buffer.in_play
        if not self.buffer.wanted:
            return self._hold(now_ns, ExecutorCode.IDLE, self.buffer.empty_because)
        self._starved_ticks += 1
        if chunk is None:
            return self._hold(
                now_ns, ExecutorCode.STARVED, f"no chunk since {self.buffer.empty_because}"
            )
        past_s = (now_ns - chunk.stamp_ns) * 1e-9 - chunk.horizon * chunk.period_s
        reason = f"{chunk.source} chunk {chunk.request_id} ended {past_s:.2f} s ago"
        return self._hold(now_ns, ExecutorCode.STARVED, reason)

    def _hold(self, now_ns: int, state: ExecutorCode, reason: str) -> Tick:
        """Ramps velocities to zero; see the class."""
        velocity = np.where(self._keeps, 0.0, self._previous)
        if self._hold_left == 0 and velocity.any():
            by_step = math.ceil(float(np.max(np.abs(velocity) / self._max_step)) - 1e-9)
            self._hold_left = min(max(by_step, 1), self.config.hold_ticks)
        if self._hold_left > 0:
            velocity = velocity * (1 - 1 / self._hold_left)
            self._hold_left -= 1
        self._previous = np.where(self._keeps, self._previous, velocity)
        send = self._armed or self._stopping
        if not velocity.any():
            self._stopping = False
        return self._report(now_ns, state, reason, send, False)

    def _report(
        self,
        now_ns: int,
        state: ExecutorCode,
        reason: str,
        send: bool,
        limited: bool,
        row: Row | None = None,
    ) -> Tick:
        chunk = row.chunk if row else self.buffer.in_play
        counts = self.buffer.counts
        return Tick(
            stamp_ns=now_ns,
            state=state,
            reason=reason,
            command=np.nan_to_num(self._previous),
            send=send and not bool(np.isnan(self._previous).any()),
            armed=self._armed,
            limited=limited,
            episode_id=self.buffer.episode_id,
            row=row.index if row else 0,
            request_id=chunk.request_id if chunk else 0,
            chunk_stamp_ns=chunk.stamp_ns if chunk else 0,
            source=chunk.source if chunk else "",
            executed_rows=self.buffer.executed_rows,
            remaining_rows=self.buffer.remaining_rows(now_ns),
            ticks=self._ticks,
            starved_ticks=self._starved_ticks,
            chunks_accepted=counts["accepted"],
            chunks_dropped=self.buffer.dropped,
            limited_ticks=self._limited_ticks,
            late_ticks=self._late_ticks,
            drops={code: count for code, count in counts.items() if code not in _TAKEN},
        )


_TAKEN = ("accepted", "stop")
