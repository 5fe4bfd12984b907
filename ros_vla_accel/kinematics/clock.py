"""How far a publisher's clock is from ours, from its first messages."""

from __future__ import annotations

SAMPLES = 20
"""Messages that the estimate is made of."""

TOLERANCE_S = 0.1
"""Smaller differences are the way of the message, not another clock."""


class ClockAlignment:
    """A constant offset between header stamps and the time of arrival, found once.

    Real drivers stamp with their own clock, seconds away from that of the cameras. The offset is
    the lower quartile of the first 20 differences (the least delayed messages tell the clocks
    apart best, a corrupt stamp or two do no harm); it counts when it is larger than 0.1 s and
    half of the differences lie within 0.1 s of it. It never moves afterwards, so that what
    follows from the stamps is a function of the messages, live and in replay alike.

    One-way stamps cannot tell another clock from a constant delay, and on a live robot a delay
    must not pass for freshness: with ``trusted`` false the offset is found but not applied.
    """

    def __init__(self, trusted: bool = True) -> None:
        self.trusted = trusted
        self.found_ns = 0
        self.offset_ns = 0
        self.settled = False
        self._differences: list[int] = []

    def observe(self, header_ns: int, received_ns: int) -> int:
        """Takes the stamps of one message; returns by how much the offset changed, ns.

        received_ns: 0 while our own clock is not known (simulated time before /clock).
        """
        if self.settled or received_ns == 0:
            return 0
        self._differences.append(received_ns - header_ns)
        if len(self._differences) < SAMPLES:
            return 0
        self.settled = True
        before_ns = self.offset_ns
        self.found_ns = _constant(sorted(self._differences))
        self.offset_ns = self.found_ns if self.trusted else 0
        return self.offset_ns - before_ns

    def restart(self) -> None:
        """The publisher's clock was reset: estimates anew, with the old offset until then."""
        self.settled = False
        self._differences.clear()


def _constant(differences: list[int]) -> int:
    """The offset that sorted differences agree on, ns; 0 if it is small or they do not agree."""
    quartile = differences[len(differences) // 4]
    tolerance_ns = TOLERANCE_S * 1e9
    if abs(quartile) <= tolerance_ns:
        return 0
    close = sum(abs(difference - quartile) <= tolerance_ns for difference in differences)
    return quartile if 2 * close >= len(differences) else 0
