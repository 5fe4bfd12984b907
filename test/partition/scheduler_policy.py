"""A scheduler under a virtual clock, as its node drives it."""

from dataclasses import replace

import numpy as np

from ros_vla_accel.contracts import ActionChunk
from ros_vla_accel.partition.orders import (
    Order,
    SchedulerConfig,
    StartCloud,
    StartEdge,
)
from ros_vla_accel.partition.route import Decision, Route
from ros_vla_accel.partition.scheduler import RequestScheduler

MS = 1_000_000
PERIOD = 50 * MS
IDLE, PLAYING, STARVED, FAULT = range(4)


class Policy:
    """A scheduler with its clock, an executor that reports, and a camera of every instant."""

    def __init__(self, **settings: float) -> None:
        self.scheduler = RequestScheduler(SchedulerConfig(**settings), lambda: 1000)  # type: ignore[arg-type]
        self.now = 10_000 * MS
        self.steady = 0
        self.scheduler.on_instruction("open the drawer")
        self.executor(episode=0)

    def wait(self, ms: int) -> None:
        self.now += ms * MS
        self.steady += ms * MS

    def executor(
        self,
        stamp_ns: int | None = None,
        state: int = PLAYING,
        episode: int | None = None,
        request_id: int = 1,
    ) -> None:
        current = self.scheduler.episode_id if episode is None else episode
        chunk = (0, 0) if stamp_ns is None else (request_id, stamp_ns)
        self.scheduler.on_executor_state(self.steady, current, *chunk, state)

    def decide(
        self,
        route: Route = Route.CLOUD,
        seq: int = 0,
        valid_ms: int = 500,
        cut: str = "observation",
        **flags: bool,
    ) -> None:
        valid_ns = self.now + valid_ms * MS
        decision = Decision(route, valid_ns, seq, cut, "jpeg", 0.3, "test")
        self.scheduler.on_decision(replace(decision, **flags))  # type: ignore[arg-type]

    def poll(self, observation_ns: int | None = -1) -> Order | None:
        seen = self.now if observation_ns == -1 else observation_ns
        return self.scheduler.poll(self.now, self.steady, seen)

    def reply(self, order: Order, value: float = 0.0) -> None:
        assert isinstance(order, StartCloud)
        rows = np.full((16, 2), value, np.float32)
        chunk = ActionChunk(
            rows, 0.05, order.stamp_ns, order.request_id, order.episode_id, "cloud"
        )
        self.scheduler.on_chunk(chunk, self.now)

    def finish(self, order: Order | None) -> bool:
        assert isinstance(order, StartEdge)
        return self.scheduler.on_edge_done(order.request_id, self.now)
