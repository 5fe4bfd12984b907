"""Who is asked for the next chunk: RAPID by the classes of the nodes, and its baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ros_vla_accel.contracts import ActionChunk, ExecutorCode
from ros_vla_accel.experiments.offloading import World
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.partition.baselines import Baseline, UncertaintyThreshold, disagreement
from ros_vla_accel.partition.dispatcher import Dispatcher
from ros_vla_accel.partition.link import LinkConfig, LinkHealth
from ros_vla_accel.partition.orders import SchedulerConfig, StartCloud, StartEdge
from ros_vla_accel.partition.route import Route, RouteConfig, RouteDecider
from ros_vla_accel.partition.scheduler import RequestScheduler
from ros_vla_accel.partition.triggers import TriggerConfig, Triggers

CLOUD_DEADLINE_S = RouteConfig().deadline_s
DECIDE_NS = round(RouteConfig().validity_s / 5 * 1e9)


class BaselineStrategy:
    """Asks when ``replan_rows`` rows of the chunk in play are over, one question at a time.

    A chunk of the edge that the baseline doubts is kept while the cloud is asked with what the
    cameras see then, and is played if no answer comes by the deadline or the end of the chunk in
    play. Otherwise the cloud is awaited, however long.

    stop_and_think: the arm holds during an inference, and its chunk begins when it is there. An
    edge that takes as long as a chunk lasts can work in no other way. full: which policy the edge
    runs.
    """

    def __init__(
        self, make: Callable[[], Baseline], stop_and_think: bool = False, full: bool = False
    ) -> None:
        self._make, self._stop, self._full = make, stop_and_think, full

    def begin(self, world: World) -> None:
        self._world, self._dispatcher = world, self._make()
        self._busy = True

    def on_sample(self, sample: JointSample) -> None:
        pass

    def instruct(self, text: str) -> None:
        self._busy = False

    def on_executor(self) -> None:
        pass

    def poll(self) -> None:
        world = self._world
        if self._busy:
            return
        chunk = world.buffer.in_play
        if chunk is not None:
            age_rows = (world.now_ns - chunk.stamp_ns) / world.period_ns
            if age_rows < world.spec.replan_rows:
                return
        self._busy = True
        world.replan()
        if self._dispatcher.route() is Route.CLOUD:
            world.ask_cloud(world.observe(), lambda make: self._end(make()))
            return
        if self._stop:
            world.buffer.clear("inference under way", world.now_ns - 1, wanted=True)
        world.ask_edge(
            world.observe(),
            self._edge_done,
            full=self._full,
            samples=self._dispatcher.samples,
        )

    def _edge_done(self, chunks: list[ActionChunk]) -> None:
        world, chunk = self._world, chunks[0]
        drawn = np.stack([c.actions for c in chunks])
        if len(chunks) > 1:
            world.figures.disagreements.append(disagreement(drawn))
        if not self._dispatcher.doubts(drawn):
            self._end(chunk)
            return
        answered = False

        def answer(make: Callable[[], ActionChunk]) -> None:
            nonlocal answered
            late, answered = answered, True
            if late:
                world.offer(make())
            else:
                self._end(make())

        def fall_back() -> None:
            nonlocal answered
            if not answered:
                answered = True
                world.figures.fallbacks += 1
                self._end(chunk)

        deadline_ns = world.now_ns + round(CLOUD_DEADLINE_S * 1e9)
        playing = world.buffer.in_play
        if playing is not None:
            end_ns = playing.stamp_ns + playing.horizon * playing.period_ns
            deadline_ns = min(deadline_ns, max(end_ns, world.now_ns))
        world.ask_cloud(world.observe(), answer)
        world.later(deadline_ns, fall_back)

    def _end(self, chunk: ActionChunk) -> None:
        self._busy = False
        if self._stop:
            now_ns = self._world.now_ns
            self._world.offer(replace(chunk, stamp_ns=now_ns), chunk.stamp_ns)
        else:
            self._world.offer(chunk)


class RapidStrategy:
    """RAPID as the nodes run it: triggers, dispatcher, decision, scheduler and link health."""

    def __init__(self, triggers: TriggerConfig, route: RouteConfig) -> None:
        self._trigger_config, self._route_config = triggers, route

    def begin(self, world: World) -> None:
        self._world = world
        self._triggers = Triggers(self._trigger_config)
        self._dispatcher = Dispatcher(self._trigger_config)
        self._decider = RouteDecider(self._route_config)
        self._scheduler = RequestScheduler(
            SchedulerConfig.of_policy(world.spec, edge_p95_s=world.setting.durations.light_edge_s),
            lambda: 1,
        )
        self._health = LinkHealth(seed=world.seed)
        self._health.accepted(0.0)
        self._ping_ns = self._decide_ns = 0
        self._awaited = 0

    def on_sample(self, sample: JointSample) -> None:
        signals = self._triggers.update(sample)
        due = self._decider.note(signals)
        if self._dispatcher.update(signals):
            granted = self._decider.preempt(self._world.now_ns, self._health.state)
            self._world.figures.preemptions += granted and bool(self._scheduler.instruction)
            due |= granted
        self._tend_link()
        if due or self._world.now_ns >= self._decide_ns:
            self._decide_ns = self._world.now_ns + DECIDE_NS
            decision = self._decider.decide(self._world.now_ns, self._health.state)
            self._scheduler.on_decision(decision)

    def _tend_link(self) -> None:
        """What the cloud client does beside requests: pings and their answers."""
        world = self._world
        now_s = world.now_ns * 1e-9
        self._health.tick(now_s)
        if self._health.probe_due(now_s):
            self._health.probe_sent(now_s)
            answered_ns = round(world.link.answered_s(now_s) * 1e9)
            world.later(answered_ns, lambda: self._health.accepted(answered_ns * 1e-9))
        if world.now_ns >= self._ping_ns:
            self._ping_ns = world.now_ns + round(LinkConfig().ping_interval_s * 1e9)
            heard_ns = round(world.link.answered_s(now_s) * 1e9)
            world.later(heard_ns, lambda: self._health.heard(heard_ns * 1e-9))

    def instruct(self, text: str) -> None:
        self._scheduler.on_instruction(text)
        self.on_executor()

    def on_executor(self) -> None:
        world, chunk = self._world, self._world.buffer.in_play
        playing = chunk is not None and world.buffer.remaining_rows(world.now_ns) > 0
        self._scheduler.on_executor_state(
            world.now_ns,
            world.buffer.episode_id,
            chunk.request_id if chunk else 0,
            chunk.stamp_ns if chunk else 0,
            ExecutorCode.PLAYING if playing else ExecutorCode.STARVED,
        )

    def poll(self) -> None:
        world = self._world
        while order := self._scheduler.poll(world.now_ns, world.now_ns, world.now_ns):
            if order.reason == "cloud is late":
                world.figures.fallbacks += 1
            else:
                world.replan()
            if isinstance(order, StartEdge):
                self._start_edge(order)
            elif isinstance(order, StartCloud):
                self._start_cloud(order)

    def _start_edge(self, order: StartEdge) -> None:
        def done(chunks: list[ActionChunk]) -> None:
            if self._scheduler.on_edge_done(order.request_id, self._world.now_ns):
                self._take(chunks[0], order)

        self._world.ask_edge(self._world.observe(), done)

    def _start_cloud(self, order: StartCloud) -> None:
        """As the cloud client: the newest request is awaited, until its deadline."""
        world = self._world
        self._awaited = order.request_id

        def answer(make: Callable[[], ActionChunk]) -> None:
            now_s = world.now_ns * 1e-9
            if self._awaited != order.request_id:
                self._health.heard(now_s)
                return
            self._awaited = 0
            self._health.answered(now_s)
            self._take(make(), order)

        def expire() -> None:
            if self._awaited == order.request_id:
                self._awaited = 0
                self._health.unanswered(world.now_ns * 1e-9, "no answer in time")

        world.ask_cloud(world.observe(), answer)
        world.later(order.deadline_ns, expire)

    def _take(self, chunk: ActionChunk, order: StartEdge | StartCloud) -> None:
        chunk = replace(chunk, request_id=order.request_id, episode_id=order.episode_id)
        self._scheduler.on_chunk(chunk, self._world.now_ns)
        self._world.offer(chunk)


def uncertainty(threshold: float) -> BaselineStrategy:
    """The uncertainty rule with its 4 chunks per replan."""
    return BaselineStrategy(lambda: UncertaintyThreshold(threshold))
