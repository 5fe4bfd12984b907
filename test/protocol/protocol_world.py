"""A virtual robot, its processes and its cloud, for the test of the request protocol.

Real parts: RequestScheduler, RouteDecider, Executor with its ChunkBuffer. Modelled: the camera,
the edge's inference time, the cloud client (a sloppy one, which forwards every reply that it
gets, however late), the link and the worker. docs/protocol.md states the rules pinned here.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import numpy as np
from protocol_rules import (
    HOLD_TICKS,
    HORIZON,
    LIMITS,
    MS,
    PERIOD,
    SETTLE,
    STEP,
    WIDTHS,
    Rules,
)

from ros_vla_accel.contracts import ActionChunk
from ros_vla_accel.control.executor import Executor, ExecutorConfig, Tick
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.partition.link import LinkState
from ros_vla_accel.partition.orders import SchedulerConfig, StartCloud, StartEdge, Stop
from ros_vla_accel.partition.route import Decision, Route, RouteConfig, RouteDecider
from ros_vla_accel.partition.scheduler import RequestScheduler
from ros_vla_accel.partition.triggers import TriggerSignals


class World(Rules):
    """Processes and messages; ``step`` advances 10 ms and checks every rule."""

    def __init__(self) -> None:
        self.steady = 0
        self.base = 1_000_000 * MS
        self.wall_ms = 1_700_000_000_000
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.order = itertools.count(1)
        self.link = "fine"
        self.health = LinkState.HEALTHY
        self.edge_ms = 120
        self.width = 16
        self.motion = "calm"
        self.edge_fails = False
        self.instruction = ""
        self.blind = False
        self.joints_ns: int | None = None
        self.joints_silent = False
        self.calm_since = 0
        self.idle_since: int | None = None
        self.worker_alive = True
        self.latched: Decision | None = None
        self.forgotten = False
        self.policy: RequestScheduler | None = None
        self.executor: Executor | None = None
        self.manager: RouteDecider | None = None
        self.known: dict[int, ActionChunk] = {}
        self.last_policy: RequestScheduler | None = None
        self.start_executor()
        self.start_manager()
        self.start_policy()

    @property
    def now(self) -> int:
        return self.base + self.steady

    @property
    def episode(self) -> int:
        """The newest episode of the newest policy process."""
        return self.last_policy.episode_id if self.last_policy else 0

    def later(self, delay_ms: int, call: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.steady + delay_ms * MS, next(self.order), call))

    def disturb(self) -> None:
        self.calm_since = self.steady

    # Processes

    def start_policy(self, wall_back: bool = False) -> None:
        self.wall_ms += -3_600_000 if wall_back else 1000
        config = SchedulerConfig(horizon=HORIZON, edge_p95_s=0.25, widths=WIDTHS)
        self.policy = self.last_policy = RequestScheduler(config, lambda: self.wall_ms)
        self.computing: StartEdge | None = None
        self.asked: StartCloud | None = None
        self.asked_preempt = -1
        self.owed_ns: int | None = None
        self.due_ns = 0
        self.last_id = 0
        self.newest: ActionChunk | None = None
        self.newest_at = 0
        self.shown = 0
        self.risen: set[int] = set()
        self.rise_since: int | None = None
        self.old_since: int | None = None
        self.asked_ns: int | None = None
        self.policy.on_width(self.width)
        if self.latched is not None:
            self.policy.on_decision(self.latched)
            self.forgotten = False
        self.policy.on_instruction(self.instruction)
        self.restart_idle()
        self.disturb()

    def start_executor(self) -> None:
        self.executor = Executor(
            ExecutorConfig(armed=True, blend_rows=3, hold_ticks=HOLD_TICKS), LIMITS
        )
        self.offered_episode = 0
        self.played: tuple[int, int] = (0, 0)
        self.last: Tick | None = None
        self.holding = 0
        self.faulted_ns = 0
        self.restart_idle()
        self.disturb()

    def start_manager(
        self, deadline_s: float = 0.3, mode: str = "auto", reuse: bool = False
    ) -> None:
        self.manager = RouteDecider(RouteConfig(mode, deadline_s=deadline_s, reuse=reuse))

    def decide(self) -> None:
        assert self.manager is not None
        self.latched = self.manager.decide(self.now, self.health)
        if self.policy is not None:
            self.policy.on_decision(self.latched)
            self.forgotten = False

    def sample(self, manager: RouteDecider) -> None:
        """A joint sample, as the triggers judge it."""
        critical, sees = self.motion == "critical", self.motion != "cold"
        levels = (0.0, 0.0, 0.0, 0.0, 0.0, float(critical))
        if manager.note(TriggerSignals(self.now, *levels, critical, self.motion, sees)):
            self.decide()

    def preempt(self) -> None:
        if self.manager is not None and self.manager.preempt(self.now, self.health):
            self.decide()

    def restart_idle(self) -> None:
        self.idle_since = None if self.instruction else self.steady

    # Messages

    def instruct(self, text: str) -> None:
        self.instruction = text
        if self.policy is not None:
            before = self.policy.episode_id
            self.policy.on_instruction(text)
            assert self.policy.episode_id > before, "episodes rise with each instruction"
        self.owed_ns = self.asked = self.newest = None
        self.restart_idle()
        self.disturb()

    def command_width(self, bits: int) -> None:
        self.width = bits
        if self.policy is not None:
            self.policy.on_width(bits)

    def executed(self) -> int:
        """The width at which an inference that starts now runs."""
        return min(width for width in WIDTHS if width >= self.width)

    def publish_chunk(self, chunk: ActionChunk) -> None:
        self.known[chunk.request_id] = chunk
        if self.policy is not None:
            self.policy.on_chunk(chunk, self.now)
            good = bool(np.isfinite(chunk.actions).all())
            current = chunk.horizon and chunk.episode_id == self.policy.episode_id
            if good and current and chunk.stamp_ns <= self.now + PERIOD:
                newer = self.newest is None or chunk.stamp_ns > self.newest.stamp_ns
                if newer:
                    self.newest, self.newest_at = chunk, self.steady
            if self.asked and chunk.source == "cloud" and good:
                if chunk.stamp_ns >= self.asked.stamp_ns:
                    self.asked = self.owed_ns = None
                elif self.now - chunk.stamp_ns <= self.asked.deadline_ns - self.asked.stamp_ns:
                    self.owed_ns = self.due_ns
        if self.executor is not None:
            bad = not np.isfinite(chunk.actions).all()
            ahead = chunk.horizon and chunk.stamp_ns > self.now + PERIOD
            if not bad and not ahead:
                self.offered_episode = max(self.offered_episode, chunk.episode_id)
            self.executor.offer(chunk, self.now)

    def chunk(self, order: StartEdge | StartCloud, source: str, bits: int = 16) -> ActionChunk:
        value = 0.2 if order.request_id % 2 else -0.2
        rows = np.full((HORIZON, 2), value, np.float32)
        ids = (order.request_id, order.episode_id)
        return ActionChunk(rows, 0.05, order.stamp_ns, *ids, source, activation_bits=bits)

    def carry_out(self, order: StartEdge | StartCloud | Stop) -> None:
        policy = self.policy
        assert policy is not None
        assert order.request_id > self.last_id, "request ids rise"
        self.last_id = order.request_id
        if not isinstance(order, Stop):
            assert order.stamp_ns == self.observation(), "an observation that nobody made"
            self.check_rise(order)
            self.check_reuse(order)
        if isinstance(order, Stop):
            rows = np.zeros((0, 2), np.float32)
            stop = ActionChunk(rows, 0.05, self.now, order.request_id, order.episode_id, "stop")
            self.publish_chunk(stop)
        elif isinstance(order, StartEdge):
            assert self.computing is None, "one edge inference in flight"
            self.computing = order
            self.owed_ns = None
            bits = self.executed()
            self.later(self.edge_ms, lambda: self.edge_done(policy, order, bits))
        else:
            assert self.latched is not None
            assert self.latched.route is Route.CLOUD, "asked the cloud against the decision"
            assert self.now <= self.latched.valid_until_ns, "an expired decision means edge"
            seq = self.latched.preempt_seq
            if self.asked and self.now < self.asked.deadline_ns:
                assert seq != self.asked_preempt, "one cloud request in flight"
            self.due_ns = order.deadline_ns - round(policy.edge_p95_s * 1e9)
            owed_ns = self.due_ns if self.owed_ns is None else self.owed_ns
            self.owed_ns = min(self.due_ns, owed_ns)
            self.asked, self.asked_preempt = order, seq
            self.relay(order)

    def edge_done(self, policy: RequestScheduler, order: StartEdge, bits: int) -> None:
        if policy is not self.policy:
            return
        self.computing = None
        if self.edge_fails:
            self.edge_fails = False
            assert not policy.on_edge_done(order.request_id, self.now, ok=False)
            self.disturb()
        elif policy.on_edge_done(order.request_id, self.now):
            assert order.episode_id == policy.episode_id, "published after a new instruction"
            if self.asked and order.stamp_ns >= self.asked.stamp_ns:
                self.asked = self.owed_ns = None
            self.publish_chunk(self.chunk(order, "edge", bits))

    def relay(self, order: StartCloud) -> None:
        manager = self.manager
        if manager is None or not self.worker_alive or self.link == "lost":
            return
        delays = {"late": [900], "twice": [80, 300]}.get(self.link, [80])
        if self.link == "reordered":
            delays = [450 if order.request_id % 2 else 60]
        answer = self.chunk(order, "cloud", self.executed())
        if self.link == "garbage":
            answer.actions[3, 0] = np.nan

        def arrive() -> None:
            if self.manager is manager and self.worker_alive:
                self.publish_chunk(answer)

        for delay in delays:
            self.later(delay, arrive)

    # Time

    def step(self) -> None:
        self.steady += STEP
        while self.queue and self.queue[0][0] <= self.steady:
            heapq.heappop(self.queue)[2]()
        if not self.joints_silent:
            self.joints_ns = self.now
            if self.manager is not None:
                self.sample(self.manager)
        if self.manager is not None and self.steady % (100 * MS) == 0:
            self.decide()
        if self.executor is not None and self.steady % PERIOD == 0:
            self.tick(self.executor)
        if self.policy is not None:
            self.poll(self.policy)

    def observation(self) -> int | None:
        return None if self.blind else self.now // PERIOD * PERIOD - 10 * MS

    def poll(self, policy: RequestScheduler) -> None:
        for _ in range(4):
            order = policy.poll(self.now, self.steady, self.observation())
            if order is None:
                break
            self.carry_out(order)
        else:
            raise AssertionError("poll gives orders without end")
        able = self.settled() and self.computing is None and self.executor is not None
        if able and self.owed_ns is not None:
            late_ms = (self.now - self.owed_ns) / MS
            assert late_ms <= 2 * STEP / MS, f"the edge started {late_ms} ms too late"
        self.watch_rise(able)
        self.watch_age(able)

    def settled(self) -> bool:
        """Policy, executor and sensors have worked undisturbed; the cloud may do what it likes."""
        working = self.policy and self.executor and self.instruction
        sound = working and not self.blind and not self.joints_silent
        return bool(sound) and self.steady - self.calm_since > SETTLE

    def tick(self, executor: Executor) -> None:
        sample = None
        if self.joints_ns is not None:
            sample = JointSample(self.joints_ns, np.zeros(1), np.zeros(1))
        tick = executor.tick(self.now, sample)
        self.check(tick, sample)
        self.last = tick
        if self.policy is not None:
            policy = self.policy
            seen = (tick.episode_id, tick.request_id, tick.chunk_stamp_ns, int(tick.state))
            self.later(20, lambda: self.show(policy, seen))

    def show(self, policy: RequestScheduler, seen: tuple[int, int, int, int]) -> None:
        policy.on_executor_state(self.steady, *seen)
        if policy is self.policy:
            self.shown = seen[1]
