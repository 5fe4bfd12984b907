"""What the client tells about its link."""

from __future__ import annotations

from dataclasses import dataclass

from ros_vla_accel.partition.link import LinkState


@dataclass(frozen=True)
class LinkSnapshot:
    """State of a link at one instant: the fields of ``msg/LinkStats.msg``, and two more.

    Counts are since the client's start. superseded: requests forgotten because a newer one was
    submitted. dropped: replies that were late, for a superseded request, or for another
    incarnation of this client. worker: the policy that answers and its precision, empty if
    none does.
    Milliseconds and Mbit/s are NaN before the first sample.
    """

    health: LinkState
    endpoint: str
    round_trip_ms: float
    round_trip_p95_ms: float
    bandwidth_mbps: float
    worker_p50_ms: float
    requests: int
    replies: int
    expired: int
    rejected: int
    superseded: int
    dropped: int
    bytes_sent: int
    bytes_received: int
    reason: str
    worker: str
