"""Notices that something which should happen regularly no longer does."""

from __future__ import annotations


class Watchdog:
    """Expires when it has not been fed for ``timeout_s`` on the steady clock.

    Liveness is not measured on the node's clock: a stopped ``/clock`` would stop the watchdog
    with it. All times are ``time.monotonic_ns()``.
    """

    def __init__(self, timeout_s: float) -> None:
        if not timeout_s > 0:
            raise ValueError(f"timeout_s must be positive; got {timeout_s}")
        self.timeout_s = timeout_s
        self._fed_ns: int | None = None

    def feed(self, steady_ns: int) -> None:
        """Starts the wait anew."""
        self._fed_ns = steady_ns

    def age_s(self, steady_ns: int) -> float:
        """Seconds since the last feed; infinite before the first."""
        if self._fed_ns is None:
            return float("inf")
        return (steady_ns - self._fed_ns) * 1e-9

    def expired(self, steady_ns: int) -> bool:
        """Whether the timeout has passed; true before the first feed."""
        return self.age_s(steady_ns) > self.timeout_s
