"""When to infer, and whom to ask: the policy's side of the request protocol."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from threading import RLock

import numpy as np

from ros_vla_accel.contracts import ActionChunk, ExecutorCode
from ros_vla_accel.partition.in_flight import CloudInFlight, CutTimes, EdgeInFlight
from ros_vla_accel.partition.in_play import Covered, ExecutorReport, InPlay
from ros_vla_accel.partition.latency import LatencyWindow
from ros_vla_accel.partition.orders import Order, SchedulerConfig, StartCloud, StartEdge, Stop
from ros_vla_accel.partition.replan import Preemptions, replan_age_s
from ros_vla_accel.partition.route import Decision, Route
from ros_vla_accel.partition.width_rise import WidthRise


class RequestScheduler:
    """Decides when a new chunk is wanted and who makes it; docs/protocol.md has the tables.

    A pure state machine: every call takes its times, ``now_ns`` on the clock of the observations
    (the node's) and ``steady_ns`` on the steady clock, so that a test drives it with a virtual
    clock. The node reports events (``on_...``) and calls ``poll`` after each event and on a timer
    (every 20 ms), again and again until it returns None; it carries out each order at once. Any
    thread may call.

    One edge inference and one cloud request are in flight at most. A cloud request that is not
    answered in time costs nothing: the edge starts when its own p95 inference time is all that
    is left before the deadline, or before the chunk in play runs out.

    wall_ms: Unix time in ms. Request ids start at its microseconds and episode ids at it, so that
    both rise across restarts and are still exact as doubles, which is how tools plot them.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self.edge_latency = LatencyWindow()
        self.cloud_latency = LatencyWindow()
        self.instruction = ""
        self.episode_id = wall_ms()
        self._last_request_id = wall_ms() * 1000
        self._period_ns = round(config.period_s * 1e9)
        self._play = InPlay(config)
        self._rise = WidthRise(config.widths)
        self._cuts = CutTimes()
        self._echoed = False
        self._decision: Decision | None = None
        self._preemptions = Preemptions(config)
        self._edge: EdgeInFlight | None = None
        self._cloud: CloudInFlight | None = None
        self._stop_due = False
        self._stopped_steady_ns: int | None = None
        self._started_steady_ns: int | None = None
        self._rest_until_ns = 0
        self._now_ns: int | None = None
        self._lock = RLock()

    # Events

    def on_instruction(self, text: str) -> bool:
        """A new instruction starts an episode, an empty one idles; the same text is no news."""
        with self._lock:
            text = text.strip()
            if text == self.instruction:
                return False
            self.instruction = text
            self._stop_due = not text
            self._new_episode(self.episode_id + 1)
            return True

    def on_executor_state(
        self,
        steady_ns: int,
        episode_id: int,
        request_id: int,
        chunk_stamp_ns: int,
        state: int,
    ) -> None:
        """The newest executor_state. request_id: of the chunk in play, 0 if none."""
        with self._lock:
            self._play.executor = ExecutorReport(
                episode_id, request_id, chunk_stamp_ns, state, steady_ns
            )
            if episode_id == self.episode_id:
                self._echoed = True
            elif episode_id > self.episode_id and not self._echoed:
                # Our ids start lower than our predecessor's: the wall clock was set back.
                self._new_episode(episode_id + 1)

    def on_decision(self, decision: Decision) -> None:
        """The newest partition_decision; its first preempt_seq is no preemption."""
        with self._lock:
            self._decision = decision
            self._preemptions.take(decision)

    def on_width(self, bits: int, needed_ns: int = 0) -> None:
        """The activation width that an inference started now would run at; needed_ns: from when
        on it is needed, 0 for now."""
        with self._lock:
            self._rise.command(bits, needed_ns)

    def on_features(self, cut: str, seconds: float) -> None:
        """The policy can be cut there, and just took so long for the stages before the cut."""
        with self._lock:
            self._cuts.note(cut, seconds)

    def on_features_failed(self, request_id: int, cut: str) -> None:
        """No features, and none after this cut any more: whole observations go instead."""
        with self._lock:
            self._cuts.drop(cut)
            self.on_cloud_failed(request_id)

    @property
    def cuts(self) -> tuple[str, ...]:
        """Where the policy can be cut; elsewhere whole observations are sent."""
        return ("observation", *self._cuts.known)

    def on_chunk(self, chunk: ActionChunk, now_ns: int) -> None:
        """Any chunk seen on action_chunk; of our own (edge) only the width is noted."""
        with self._lock:
            self._rise.made(chunk.request_id, chunk.activation_bits)
            if chunk.source != "cloud" or chunk.episode_id != self.episode_id:
                return
            # What the executor drops is no answer: nonsense, or from before a clock reset.
            ahead = chunk.stamp_ns > now_ns + self._period_ns
            if ahead or not chunk.horizon or not np.isfinite(chunk.actions).all():
                self.on_cloud_failed(chunk.request_id)
                return
            cloud = self._cloud
            if cloud is not None and chunk.request_id == cloud.request_id:
                self._cloud = None
                self.cloud_latency.add((now_ns - chunk.stamp_ns) * 1e-9)
                self.counts["late" if now_ns > cloud.deadline_ns else "replies_cloud"] += 1
            else:
                self.counts["late"] += 1
                if cloud and now_ns - chunk.stamp_ns <= cloud.deadline_ns - cloud.stamp_ns:
                    # A superseded request was answered in time: the cloud is there.
                    cloud.fallback_ns = cloud.own_fallback_ns
            self._play.answer(chunk.request_id, chunk.stamp_ns, now_ns)

    def on_edge_done(self, request_id: int, now_ns: int, ok: bool = True) -> bool:
        """The edge inference ended; returns whether its chunk is to be published."""
        with self._lock:
            edge = self._edge
            if edge is None or edge.request_id != request_id:
                return False
            self._edge = None
            if not ok:
                self.counts["failures_edge"] += 1
                self._rest_until_ns = now_ns + round(self.config.retry_s * 1e9)
                return False
            self.counts["inferences_edge"] += 1
            self.edge_latency.add((now_ns - edge.started_ns) * 1e-9)
            if edge.episode_id != self.episode_id:
                return False
            self._play.answer(request_id, edge.stamp_ns, now_ns)
            return True

    def on_cloud_failed(self, request_id: int) -> None:
        """The request was not sent, or was answered with nonsense: the edge takes over at once."""
        with self._lock:
            if self._cloud is not None and self._cloud.request_id == request_id:
                self.counts["failures_cloud"] += 1
                self._cloud.fallback_ns = self._cloud.own_fallback_ns = -1

    # Orders

    def poll(self, now_ns: int, steady_ns: int, observation_ns: int | None) -> Order | None:
        """The next order, or None.

        observation_ns: stamp of the newest complete observation; None if inputs are missing or
        stale, and then nothing is started. An order names the stamp it was given.
        """
        with self._lock:
            self._watch_clock(now_ns)
            if self._usurped():
                return None
            if not self.instruction:
                return self._poll_stop(steady_ns)
            covered = self._play.covered(now_ns, steady_ns, self.episode_id)
            covered_ns = covered.stamp_ns if covered else None
            asked = [covered_ns or 0, *(x.stamp_ns for x in (self._edge, self._cloud) if x)]
            self.counts["preemptions_spared"] += self._preemptions.spare(max(asked), now_ns)
            self._close_cloud(now_ns, covered_ns)
            if observation_ns is None:
                return None
            if covered_ns is not None and observation_ns <= covered_ns:
                return None  # An answer would be no newer than what is in play.
            if self._play.gone(steady_ns):
                return self._poll_alone(now_ns, steady_ns, observation_ns)
            why = self._wanted(now_ns, covered)
            if not why:
                return None
            order = self._choose(now_ns, steady_ns, observation_ns, covered_ns, why)
            if order is not None and covered is not None:
                due_ns = self._due_ns(now_ns, covered)
                self.counts["width_rises"] += self._rise.serve(covered.request_id, due_ns)
            return order

    def stop(self) -> Stop:
        """A stop for the present episode, when inference ends though the instruction stands."""
        with self._lock:
            return Stop(self._next_request_id(), self.episode_id)

    def status(self, steady_ns: int) -> str:
        """ "ok", or why inference is stopped or slowed."""
        with self._lock:
            if self._usurped():
                return "another policy process owns the executor; stop one of the two"
            if not self.instruction:
                return "no instruction"
            if self._play.gone(steady_ns):
                return "no executor_state: one edge inference per idle_period_s, no cloud"
            chunk_s = self.config.horizon * self.config.period_s
            if self.edge_p95_s > chunk_s:
                return (
                    f"edge inference takes {self.edge_p95_s:.2f} s, longer than a chunk lasts "
                    f"({chunk_s:.2f} s): its chunks come too late to be played"
                )
            return "ok"

    @property
    def edge_p95_s(self) -> float:
        """The edge's p95 inference time on the node's clock, or the configured guess."""
        measured = self.edge_latency.p95_s
        return self.config.edge_p95_s if math.isnan(measured) else measured

    def _choose(
        self, now_ns: int, steady_ns: int, stamp_ns: int, covered_ns: int | None, why: str
    ) -> Order | None:
        decision = self._decision
        to_cloud = (
            decision is not None
            and decision.route is Route.CLOUD
            and now_ns <= decision.valid_until_ns
        )
        cloud = self._cloud
        if cloud is not None:
            if now_ns >= cloud.fallback_ns or not to_cloud:
                if not self._edge_free(now_ns):
                    return None
                self.counts["fallbacks_edge"] += not cloud.fell_back
                cloud.fell_back = True
                return self._start_edge(now_ns, steady_ns, stamp_ns, "cloud is late")
            if not self._preemptions.pending or stamp_ns <= cloud.stamp_ns:
                return None
        if decision is not None and to_cloud and (self._edge is None or self._preemptions.pending):
            return self._start_cloud(now_ns, stamp_ns, covered_ns, decision, why)
        if self._edge_free(now_ns):
            return self._start_edge(now_ns, steady_ns, stamp_ns, why)
        return None

    def _start_edge(self, now_ns: int, steady_ns: int, stamp_ns: int, why: str) -> StartEdge:
        order = StartEdge(self._next_request_id(), self.episode_id, stamp_ns, why)
        self._edge = EdgeInFlight(order.request_id, self.episode_id, stamp_ns, now_ns)
        self._started_steady_ns = steady_ns
        self._preemptions.answer()
        return order

    def _start_cloud(
        self, now_ns: int, stamp_ns: int, covered_ns: int | None, decision: Decision, why: str
    ) -> StartCloud:
        deadline_ns = stamp_ns + round(decision.deadline_s * 1e9)
        needed_ns = deadline_ns
        if covered_ns is not None:
            # Past already for an arm that holds: it does not wait for a second silent cloud.
            needed_ns = min(deadline_ns, covered_ns + self.config.horizon * self._period_ns)
        own_ns = needed_ns - round(self.edge_p95_s * 1e9)
        replaced = self._cloud
        # Preemptions in quick succession must not push the fallback away for ever.
        fallback_ns = own_ns if replaced is None else min(own_ns, replaced.fallback_ns)
        self.counts["superseded"] += replaced is not None
        self.counts["requests_cloud"] += 1
        request_id = self._next_request_id()
        self._cloud = CloudInFlight(request_id, stamp_ns, deadline_ns, own_ns, fallback_ns)
        self._preemptions.answer()
        return StartCloud(
            request_id,
            self.episode_id,
            stamp_ns,
            deadline_ns,
            self._cut(decision.cut, now_ns, fallback_ns),
            decision.encoding,
            why,
        )

    def _cut(self, cut: str, now_ns: int, fallback_ns: int) -> str:
        """The decision's, or the whole observation: the stages before a cut must not keep an edge
        inference waiting, nor wait for one."""
        if cut == "observation" or (
            self._edge is None and self._cuts.fits(cut, fallback_ns - now_ns)
        ):
            return cut
        self.counts["cuts_waived"] += 1
        return "observation"

    def _poll_stop(self, steady_ns: int) -> Stop | None:
        executor = self._play.executor
        playing = executor is not None and (
            executor.request_id != 0
            or executor.state not in (ExecutorCode.IDLE, ExecutorCode.FAULT)
        )
        last_ns = self._stopped_steady_ns
        waited = last_ns is None or steady_ns - last_ns >= self.config.stop_repeat_s * 1e9
        heard = playing and not self._play.gone(steady_ns)
        if not self._stop_due and not (heard and waited):
            return None
        self._stop_due = False
        self._stopped_steady_ns = steady_ns
        return Stop(self._next_request_id(), self.episode_id)

    def _poll_alone(self, now_ns: int, steady_ns: int, stamp_ns: int) -> StartEdge | None:
        """Without an executor nobody plays chunks: stay warm, and leave the cloud alone."""
        last_ns = self._started_steady_ns
        if last_ns is not None and steady_ns - last_ns < self.config.idle_period_s * 1e9:
            return None
        if not self._edge_free(now_ns):
            return None
        return self._start_edge(now_ns, steady_ns, stamp_ns, "no executor_state")

    # State

    def _wanted(self, now_ns: int, covered: Covered | None) -> str:
        if covered is None:
            return "no chunk in play"
        if self._cloud is not None:
            return "awaiting the cloud"
        if self._preemptions.pending:
            return "preempted"
        rise = self._rise.asks(covered.request_id, self._due_ns(now_ns, covered))
        if rise:
            return rise
        age_ns = now_ns - covered.stamp_ns
        due = age_ns >= self._replan_age_ns(now_ns)
        return f"chunk in play is {age_ns / self._period_ns:.1f} rows old" if due else ""

    def _replan_age_ns(self, now_ns: int) -> int:
        waits = self.edge_p95_s, self.cloud_latency.p95_s
        return round(1e9 * replan_age_s(self.config, *waits, self._decision, now_ns))

    def _due_ns(self, now_ns: int, covered: Covered) -> int:
        """When the chunk after the one in play comes, if nothing hurries it."""
        return covered.stamp_ns + self._replan_age_ns(now_ns) + round(self.edge_p95_s * 1e9)

    def _close_cloud(self, now_ns: int, covered_ns: int | None) -> None:
        cloud = self._cloud
        if cloud is None:
            return
        if covered_ns is not None and cloud.stamp_ns <= covered_ns:
            self._cloud = None  # Something newer is in play.
        elif now_ns > cloud.deadline_ns and cloud.fell_back:
            self._cloud = None
            self.counts["expired"] += 1

    def _edge_free(self, now_ns: int) -> bool:
        return self._edge is None and now_ns >= self._rest_until_ns

    def _usurped(self) -> bool:
        executor = self._play.executor
        return executor is not None and executor.episode_id > self.episode_id

    def _next_request_id(self) -> int:
        self._last_request_id += 1
        return self._last_request_id

    def _new_episode(self, episode_id: int) -> None:
        self.episode_id = episode_id
        self._cloud = None
        self._play.forget_answers()
        self._preemptions.answer()

    def _watch_clock(self, now_ns: int) -> None:
        """A clock that goes back voids every stamp of the old timeline."""
        latest_ns = self._now_ns
        self._now_ns = now_ns if latest_ns is None else max(now_ns, latest_ns)
        if latest_ns is None or now_ns >= latest_ns - self._period_ns:
            return
        self._now_ns = now_ns
        self.counts["clock_resets"] += 1
        self._cloud = None
        self._play.forget()
        self._decision = None
        self._preemptions.take(None)
        self._rest_until_ns = 0
        if self._edge is not None:
            self._edge.episode_id = -1
