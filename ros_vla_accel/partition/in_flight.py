"""What the scheduler has asked for and not got yet, and what of it the edge can spare time for."""

from __future__ import annotations

from dataclasses import dataclass

from ros_vla_accel.partition.latency import LatencyWindow


@dataclass
class EdgeInFlight:
    request_id: int
    episode_id: int
    stamp_ns: int
    started_ns: int


@dataclass
class CloudInFlight:
    request_id: int
    stamp_ns: int
    deadline_ns: int
    own_fallback_ns: int
    fallback_ns: int
    fell_back: bool = False


class CutTimes:
    """How long the stages before each cut take on the edge; a cut without a time is impossible."""

    def __init__(self) -> None:
        self._times: dict[str, LatencyWindow] = {}

    @property
    def known(self) -> tuple[str, ...]:
        return tuple(self._times)

    def note(self, cut: str, seconds: float) -> None:
        self._times.setdefault(cut, LatencyWindow(32)).add(seconds)

    def drop(self, cut: str) -> None:
        self._times.pop(cut, None)

    def fits(self, cut: str, before_ns: int) -> bool:
        """Whether features of the cut are there within ``before_ns``, as nearly always."""
        times = self._times.get(cut)
        return times is not None and times.p95_s * 1e9 <= before_ns
