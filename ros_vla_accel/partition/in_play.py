"""What the arm plays, or is about to play, as far as the policy's side can know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ros_vla_accel.partition.orders import SchedulerConfig


@dataclass(frozen=True)
class ExecutorReport:
    """The newest executor_state. request_id, chunk_stamp_ns: of the chunk in play; id 0 if none.
    steady_ns: when it came."""

    episode_id: int
    request_id: int
    chunk_stamp_ns: int
    state: int
    steady_ns: int


class Covered(NamedTuple):
    """The newest observation in play, and the request that it answers."""

    stamp_ns: int
    request_id: int


class InPlay:
    """Newest executor_state and newest answer.

    An answer counts as in play for ``grace_periods``, until executor_state has had the time to
    show it, or longer where no executor speaks.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self.executor: ExecutorReport | None = None
        self._period_ns = round(config.period_s * 1e9)
        self._grace_ns = config.grace_periods * self._period_ns
        self._timeout_ns = round(config.executor_timeout_s * 1e9)
        self._answer: tuple[Covered, int] | None = None

    def answer(self, request_id: int, stamp_ns: int, now_ns: int) -> None:
        """A chunk was published, by us or by the cloud."""
        if self._answer is None or stamp_ns > self._answer[0].stamp_ns:
            self._answer = (Covered(stamp_ns, request_id), now_ns)

    def forget_answers(self) -> None:
        self._answer = None

    def forget(self) -> None:
        """Every stamp is void."""
        self._answer = None
        self.executor = None

    def covered(self, now_ns: int, steady_ns: int, episode_id: int) -> Covered | None:
        """The newest observation that is, or is about to be, in play in this episode."""
        found = []
        if self._answer is not None:
            answer, seen_ns = self._answer
            if now_ns - seen_ns <= self._grace_ns or self.gone(steady_ns):
                found.append(answer)
        executor = self.executor
        if (
            executor is not None
            and executor.request_id != 0
            and executor.episode_id == episode_id
            and executor.chunk_stamp_ns <= now_ns + self._period_ns
        ):
            found.append(Covered(executor.chunk_stamp_ns, executor.request_id))
        return max(found, default=None)

    def gone(self, steady_ns: int) -> bool:
        """Whether the executor is silent."""
        executor = self.executor
        return executor is None or steady_ns - executor.steady_ns > self._timeout_ns
