"""What must hold at every tick and every order of the modelled world."""

from __future__ import annotations

import numpy as np

from ros_vla_accel.contracts import ExecutorCode as State
from ros_vla_accel.control.executor import Tick
from ros_vla_accel.control.limits import ActionLimits
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.partition.orders import StartCloud, StartEdge
from ros_vla_accel.partition.route import Route

MS = 1_000_000
STEP = 10 * MS
PERIOD = 50 * MS
HORIZON = 16
MAX_STEP = 0.05
HOLD_TICKS = 4
SETTLE = 1000 * MS  # Longest wait for motion once the policy and the executor can do their work.
WIDTHS = (4, 8, 16)  # of the edge policy and of the worker
RISE = 100 * MS  # Longest wait for a chunk of more bits, where nothing else is in flight.
OLD = 100 * MS  # Longest wait for the successor of a chunk that is replan_rows old, without reuse.
MOTIONS = ("calm", "critical", "cold")
LINKS = ("fine", "lost", "late", "twice", "reordered", "garbage")
LIMITS = ActionLimits(("x", "grip"), (0.2, 1.0), (MAX_STEP, 2.0), ("zero", "keep"))


class Rules:
    """Asserts over the state that ``protocol_world.World`` keeps."""

    def check_rise(self, order: StartEdge | StartCloud) -> None:
        """An inference for more bits: they are needed, and were not asked for before."""
        chunk = self.newest
        if chunk and self.steady - self.newest_at > 3 * PERIOD and self.shown:
            chunk = self.known[self.shown]  # The executor died before the newest, or dropped it.
        rises = chunk is not None and self.executed() > chunk.activation_bits
        if "bits needed" in order.reason:
            assert rises, "the chunk in play has bits enough"
            assert chunk.request_id not in self.risen, "asked twice over one chunk"
        if rises:
            self.risen.add(chunk.request_id)

    def reuses(self) -> bool:
        """Whether the decision that the policy knows allows reuse now."""
        latched = self.latched
        known = latched is not None and not self.forgotten
        return known and latched.reuse and self.now <= latched.valid_until_ns

    def check_reuse(self, order: StartEdge | StartCloud) -> None:
        """A chunk that is as good as new is not replaced; one that nothing speaks for is."""
        chunk = self.newest
        if self.reuses() and self.settled():
            assert self.latched is not None
            if order.reason == "preempted" and self.asked_ns is not None:
                assert self.now - self.asked_ns >= 300 * MS, "preempted what was just asked for"
            old = order.reason.startswith("chunk in play is")
            calm = not self.latched.critical and self.latched.route is Route.EDGE
            if old and calm and chunk and self.policy:
                left = HORIZON * PERIOD - (self.now - chunk.stamp_ns)
                needed = round(self.policy.edge_p95_s * 1e9) + PERIOD
                assert left <= needed, "not played to its end"
        self.asked_ns = order.stamp_ns

    def watch_age(self, able: bool) -> None:
        """Without reuse, a chunk that is replan_rows old is replaced at once."""
        last, chunk = self.last, self.newest
        waiting = (
            able
            and self.asked is None
            and not (self.reuses() and self.latched is not None and not self.latched.critical)
            and last is not None
            and chunk is not None
            and last.request_id == chunk.request_id
            and self.now - chunk.stamp_ns >= 8 * PERIOD
        )
        if not waiting:
            self.old_since = None
            return
        self.old_since = self.steady if self.old_since is None else self.old_since
        assert self.steady - self.old_since <= OLD, "an old chunk in play and nobody was asked"

    def watch_rise(self, able: bool) -> None:
        """A chunk in play that has too few bits is replaced at once, where anybody is free."""
        chunk = self.newest
        waiting = (
            able
            and self.asked is None
            and chunk is not None
            and self.last is not None
            and self.last.request_id == chunk.request_id
            and self.executed() > chunk.activation_bits
            and chunk.request_id not in self.risen
        )
        if not waiting:
            self.rise_since = None
            return
        self.rise_since = self.steady if self.rise_since is None else self.rise_since
        assert self.steady - self.rise_since <= RISE, "more bits are needed and nobody was asked"

    def check(self, tick: Tick, sample: JointSample | None) -> None:
        moving = bool(tick.command[0])
        if tick.state is State.PLAYING:
            self.holding = 0
            begins_ns = tick.chunk_stamp_ns + tick.row * PERIOD
            assert begins_ns <= self.now < begins_ns + PERIOD, "a row outside its period"
            assert tick.row < HORIZON
            assert tick.episode_id == self.offered_episode, "a chunk of an older episode"
            assert self.known[tick.request_id].episode_id == self.offered_episode
            assert tick.chunk_stamp_ns > self.faulted_ns, "a chunk from before the fault"
            now_playing = (tick.episode_id, tick.chunk_stamp_ns)
            assert now_playing >= self.played, "back to an older observation or episode"
            self.played = now_playing
            assert sample is not None
            assert abs(self.now - sample.stamp_ns) <= 250 * MS, "blind motion"
        else:
            self.holding += 1
            assert not (moving and self.holding >= HOLD_TICKS), "a hold that still moves"
        if tick.state is State.FAULT and not (self.last and self.last.state is State.FAULT):
            self.faulted_ns = self.now
        before = self.last.command if self.last else np.zeros(2)
        jump = abs(tick.command[0] - before[0])
        assert jump <= MAX_STEP + 1e-9, f"a jump of {jump}"
        assert abs(tick.command[0]) <= 0.2 + 1e-6
        assert np.isfinite(tick.command).all()
        if self.settled():
            assert tick.state is State.PLAYING, f"starved: {tick.reason}"
        if self.idle_since is not None and self.policy is not None:
            idle_ms = (self.steady - self.idle_since) / MS
            if tick.state is State.PLAYING:
                assert idle_ms < 300, "motion without an instruction"
            else:
                self.restart_idle()
