"""Which of the waiting requests are computed next, and together.

Plain bookkeeping without threads or sockets: every method takes the steady clock's time, so that
tests drive it under a virtual clock.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class BatchConfig:
    """max_batch: most requests in one inference.

    max_wait_s: how long a request may wait for company, s. Robots that asked within the last
        second are company; where all of them wait already, nobody else is waited for, so a
        single robot never loses time.
    max_waiting, max_waiting_bytes: robots in the queue and bytes of their data, above which
        others are told that the worker is busy.
    """

    max_batch: int = 8
    max_wait_s: float = 0.002
    max_waiting: int = 256
    max_waiting_bytes: int = 512 << 20

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_waiting", "max_waiting_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.max_wait_s <= 10:
            raise ValueError(f"max_wait_s is {self.max_wait_s}; expected 0..10 s")


@dataclass(frozen=True)
class Job(Generic[T]):
    """A request. kind: only requests of one kind may share an inference (its width, say).

    deadline_s: after it nobody waits for the answer. nbytes: memory held while it waits.
    """

    client: bytes
    kind: Hashable
    deadline_s: float
    nbytes: int
    content: T


@dataclass(frozen=True)
class Offered(Generic[T]):
    """accepted: False means busy. The others lost their place and are owed a refusal."""

    accepted: bool
    superseded: Job[T] | None
    expired: list[Job[T]]


@dataclass(frozen=True)
class Taken(Generic[T]):
    """jobs: to be computed now, in one batch. expired: owed a refusal.

    again_s: when jobs is empty, the time at which to ask again if nothing is offered before.
    """

    jobs: list[Job[T]]
    expired: list[Job[T]]
    again_s: float = math.inf


@dataclass
class _Place(Generic[T]):
    job: Job[T]
    turn: int
    since_s: float


@dataclass
class _Robot:
    """last_turn: the turn in which it was served last."""

    asked_s: float
    last_turn: int


class BatchQueue(Generic[T]):
    """One place per robot, taken in turns, within a turn by the earliest deadline.

    A robot's newer request takes over its place and keeps its turn. A robot that was served comes
    again in the next turn at the earliest, so neither short deadlines nor many requests serve one
    robot twice before another that waits; in a batch that would not be full otherwise, robots of
    the next turn ride along.
    """

    _COMPANY_S = 1.0

    def __init__(self, config: BatchConfig | None = None):
        self._config = config if config is not None else BatchConfig()
        self._places: dict[bytes, _Place[T]] = {}
        self._robots: OrderedDict[bytes, _Robot] = OrderedDict()  # by the time they asked
        self._turn = 0
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, client: bytes) -> bool:
        return client in self._places

    @property
    def nbytes(self) -> int:
        """Bytes of data that wait."""
        return self._nbytes

    def robots(self, now_s: float) -> int:
        """Robots that asked within the last second."""
        count = 0
        for robot in reversed(self._robots.values()):
            if robot.asked_s < now_s - self._COMPANY_S:
                break
            count += 1
        return count

    def offer(self, job: Job[T], now_s: float) -> Offered[T]:
        """Takes a request into the queue, if there is room."""
        old = self._places.get(job.client)
        expired: list[Job[T]] = []
        if not self._has_room(job, old):
            expired = self._drop_late(now_s)
            old = self._places.get(job.client)
        if not self._has_room(job, old):
            return Offered(False, None, expired)
        turn = self._note(job.client, now_s)
        if old is None:
            self._places[job.client] = _Place(job, turn, now_s)
        else:
            # The older one's waiting counts, or a robot that asks often would wait for ever.
            self._places[job.client] = _Place(job, old.turn, old.since_s)
            self._nbytes -= old.job.nbytes
        self._nbytes += job.nbytes
        return Offered(True, old.job if old is not None else None, expired)

    def take(self, now_s: float, needed_s: float = 0.0) -> Taken[T]:
        """The next batch. needed_s: how long an inference takes, as far as is known.

        What could not be done before its deadline counts as expired, because under load the
        earliest deadline would otherwise always be one that is just missed. Where nothing else
        waits it is tried all the same: needed_s might be out of date.
        """
        expired = self._drop_late(now_s)
        if any(place.job.deadline_s >= now_s + needed_s for place in self._places.values()):
            expired += self._drop_late(now_s + needed_s)
        if not self._places:
            return Taken([], expired)
        order = sorted(self._places.values(), key=lambda p: (p.turn, p.job.deadline_s, p.since_s))
        same = [place for place in order if place.job.kind == order[0].job.kind]
        batch = same[: self._config.max_batch]
        complete = len(batch) == self._config.max_batch or len(order) >= self.robots(now_s)
        due_s = min(place.since_s for place in order) + self._config.max_wait_s
        if not complete and now_s < due_s:
            return Taken([], expired, due_s)
        self._turn = order[0].turn
        for place in batch:
            self._remove(place)
            robot = self._robots.get(place.job.client)
            if robot is not None:
                robot.last_turn = place.turn
        return Taken([place.job for place in batch], expired)

    def clear(self) -> list[Job[T]]:
        """Empties the queue; all that waited are owed a refusal."""
        jobs = [place.job for place in self._places.values()]
        self._places.clear()
        self._nbytes = 0
        return jobs

    def _has_room(self, job: Job[T], old: _Place[T] | None) -> bool:
        count = len(self._places) + (old is None)
        nbytes = self._nbytes + job.nbytes - (old.job.nbytes if old is not None else 0)
        return count <= self._config.max_waiting and nbytes <= self._config.max_waiting_bytes

    def _note(self, client: bytes, now_s: float) -> int:
        """Remembers that a robot asked; its turn, if it does not wait already."""
        robot = self._robots.setdefault(client, _Robot(now_s, self._turn - 1))
        robot.asked_s = now_s
        self._robots.move_to_end(client)
        if len(self._robots) > 4 * self._config.max_waiting:  # connections come and go
            self._robots.popitem(last=False)
        return max(robot.last_turn + 1, self._turn)

    def _drop_late(self, limit_s: float) -> list[Job[T]]:
        late = [place for place in self._places.values() if place.job.deadline_s < limit_s]
        for place in late:
            self._remove(place)
        return [place.job for place in late]

    def _remove(self, place: _Place[T]) -> None:
        del self._places[place.job.client]
        self._nbytes -= place.job.nbytes
