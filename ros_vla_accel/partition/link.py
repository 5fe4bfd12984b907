"""What the robot knows of its link to the cloud: how fast it is, and whether to rely on it.

Pure arithmetic and a state machine; every method takes the steady clock's time, so that tests and
simulations under a virtual clock drive the same code as the ZeroMQ client.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ros_vla_accel.partition.latency import LatencyWindow


class LinkState(IntEnum):
    """Values are those of ``msg/LinkStats.msg``."""

    DOWN = 0
    """No worker; waiting for the next probe."""
    PROBING = 1
    """A probe (handshake) is under way."""
    SUSPECT = 2
    """Silent for a while, or several requests in a row went unanswered."""
    HEALTHY = 3


@dataclass(frozen=True)
class LinkConfig:
    """Timing constants of the link, seconds.

    A worker that dies without a word is SUSPECT after suspect_after_s and DOWN after
    down_after_s of silence; pings every ping_interval_s keep a live one from falling silent.
    Probes of a link that is down wait backoff_min_s, doubling up to backoff_max_s, each time
    varied by +-jitter (a share), so that robots do not return in step.
    unanswered_limit: so many requests in a row without a chunk make the link SUSPECT for
    hold_min_s (doubling up to hold_max_s until one is answered), though pings still return: a
    worker too slow for the deadlines is no use, and is asked again only now and then. A hold ends
    early when pings return faster_by_s sooner than before it: then the way was slow, and is not
    any more.
    """

    ping_interval_s: float = 0.2
    suspect_after_s: float = 0.45
    down_after_s: float = 0.9
    probe_timeout_s: float = 0.5
    backoff_min_s: float = 0.1
    backoff_max_s: float = 1.0
    jitter: float = 0.2
    unanswered_limit: int = 3
    hold_min_s: float = 1.0
    hold_max_s: float = 8.0
    faster_by_s: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.ping_interval_s < self.suspect_after_s < self.down_after_s:
            raise ValueError(
                "link: ping_interval_s < suspect_after_s < down_after_s must hold, not "
                f"{self.ping_interval_s}, {self.suspect_after_s}, {self.down_after_s}"
            )
        for low, high in (("backoff_min_s", "backoff_max_s"), ("hold_min_s", "hold_max_s")):
            if not 0 < getattr(self, low) <= getattr(self, high):
                raise ValueError(f"link: 0 < {low} <= {high} must hold")
        if self.probe_timeout_s <= 0 or not 0 <= self.jitter < 1 or self.unanswered_limit < 1:
            raise ValueError(
                "link: probe_timeout_s must be positive, jitter in 0..1, unanswered_limit >= 1"
            )


class LinkEstimate:
    """Smoothed round trip, bandwidth and worker time.

    Round trips and worker times are kept for quantiles too, the newest ``window`` of them.
    Transfer times are smoothed per byte, so that one request slipping through at an absurd rate
    cannot raise the estimate for long. Values are NaN before the first sample.
    """

    def __init__(self, smoothing: float = 0.125, window: int = 128, large_bytes: int = 16384):
        """smoothing: weight of the newest sample, RFC 6298's for the round trip.

        large_bytes: requests below it say nothing about bandwidth.
        """
        self._smoothing = smoothing
        self._large_bytes = large_bytes
        self._round_trips = LatencyWindow(window)
        self._worker_times = LatencyWindow(window)
        self._round_trip_s = math.nan
        self._s_per_byte = math.nan

    def add_round_trip(self, seconds: float) -> None:
        """A message of a few bytes went there and back."""
        self._round_trips.add(seconds)
        self._round_trip_s = self._smooth(self._round_trip_s, seconds)

    def add_request(
        self, total_s: float, worker_s: float, inference_s: float, sent_bytes: int
    ) -> None:
        """A request was answered after total_s, of which the worker reports worker_s as its own
        (inference_s of it for the policy); the rest is round trip and transfer."""
        self._worker_times.add(inference_s)
        if sent_bytes >= self._large_bytes and not math.isnan(self._round_trip_s):
            transfer_s = max(total_s - worker_s - self._round_trip_s, 1e-6)
            self._s_per_byte = self._smooth(self._s_per_byte, transfer_s / sent_bytes)

    def _smooth(self, old: float, new: float) -> float:
        return new if math.isnan(old) else old + self._smoothing * (new - old)

    @property
    def round_trip_s(self) -> float:
        return self._round_trip_s

    @property
    def round_trip_p95_s(self) -> float:
        return self._round_trips.p95_s

    @property
    def bandwidth_bit_s(self) -> float:
        return 8.0 / self._s_per_byte

    @property
    def worker_p50_s(self) -> float:
        return self._worker_times.p50_s


class _Backoff:
    """Doubling delays with jitter."""

    def __init__(self, low_s: float, high_s: float, jitter: float, rng: np.random.Generator):
        self._low_s, self._high_s, self._jitter, self._rng = low_s, high_s, jitter, rng
        self._next_s = low_s

    def next_s(self) -> float:
        delay_s = self._next_s * float(self._rng.uniform(1 - self._jitter, 1 + self._jitter))
        self._next_s = min(2 * self._next_s, self._high_s)
        return delay_s

    def reset(self) -> None:
        self._next_s = self._low_s


class LinkHealth:
    """State machine of the link.

    | state   | to HEALTHY           | to SUSPECT                  | to DOWN                    |
    |---------|----------------------|-----------------------------|----------------------------|
    | DOWN    |                      |                             | (PROBING: probe_sent)      |
    | PROBING | accepted             |                             | probe_timeout_s, refused   |
    | SUSPECT | heard, unless held   |                             | down_after_s, lost, refused|
    | HEALTHY |                      | suspect_after_s, unanswered | lost, refused              |

    Times are those of a steady clock, seconds. Starts DOWN with a probe due at once.
    """

    def __init__(self, config: LinkConfig | None = None, seed: int = 0):
        self._config = config if config is not None else LinkConfig()
        rng = np.random.default_rng(seed)
        c = self._config
        self._backoff = _Backoff(c.backoff_min_s, c.backoff_max_s, c.jitter, rng)
        self._hold = _Backoff(c.hold_min_s, c.hold_max_s, c.jitter, rng)
        self._state = LinkState.DOWN
        self._reason = "not connected yet"
        self._probe_at_s = -math.inf
        self._probe_sent_s = -math.inf
        self._heard_s = -math.inf
        self._hold_until_s = -math.inf
        self._round_trip_s = self._held_round_trip_s = 0.0
        self._unanswered = 0

    @property
    def state(self) -> LinkState:
        return self._state

    @property
    def reason(self) -> str:
        """Why the link is not healthy; empty when it is."""
        return self._reason

    @property
    def next_change_s(self) -> float:
        """Earliest time at which tick or probe_due may say something new, if nothing arrives."""
        if self._state is LinkState.DOWN:
            return self._probe_at_s
        if self._state is LinkState.PROBING:
            return self._probe_sent_s + self._config.probe_timeout_s
        if self._state is LinkState.SUSPECT:
            return self._heard_s + self._config.down_after_s
        return self._heard_s + self._config.suspect_after_s

    def tick(self, now_s: float) -> LinkState:
        """Draws the conclusions from silence."""
        c = self._config
        if self._state is LinkState.PROBING:
            if now_s >= self._probe_sent_s + c.probe_timeout_s:
                self._go_down(now_s, self._reason)
        elif self._state >= LinkState.SUSPECT and now_s >= self._heard_s + c.down_after_s:
            self._go_down(now_s, f"no answer for {c.down_after_s} s")
        elif self._state is LinkState.HEALTHY and now_s >= self._heard_s + c.suspect_after_s:
            self._state = LinkState.SUSPECT
            self._reason = f"no answer for {c.suspect_after_s} s"
        return self._state

    def probe_due(self, now_s: float) -> bool:
        """Whether a handshake should be tried now."""
        return self._state is LinkState.DOWN and now_s >= self._probe_at_s

    def probe_sent(self, now_s: float) -> None:
        self._state = LinkState.PROBING
        self._probe_sent_s = now_s

    def accepted(self, now_s: float) -> None:
        """The handshake succeeded."""
        self._heard_s = now_s
        self._backoff.reset()
        self._unanswered = 0
        self._hold_until_s = -math.inf
        self._state = LinkState.HEALTHY
        self._reason = ""

    def heard(self, now_s: float) -> None:
        """A valid message came from the worker; pongs included."""
        self._heard_s = now_s
        if self._state is LinkState.SUSPECT and now_s >= self._hold_until_s:
            self._state = LinkState.HEALTHY
            self._reason = ""

    def returned(self, now_s: float, round_trip_s: float) -> None:
        """A ping came back."""
        self._round_trip_s = round_trip_s
        if round_trip_s < self._held_round_trip_s - self._config.faster_by_s:
            self._hold_until_s = -math.inf
        self.heard(now_s)

    def answered(self, now_s: float) -> None:
        """A request was answered with a chunk in time."""
        self._unanswered = 0
        self._hold.reset()
        self._hold_until_s = -math.inf
        self.heard(now_s)

    def unanswered(self, now_s: float, reason: str, certain: bool = False) -> None:
        """A request got an error, or nothing before its deadline.

        certain: so will the next one, and the link is SUSPECT without waiting for the limit.
        """
        self._unanswered += 1
        reached = certain or self._unanswered >= self._config.unanswered_limit
        if reached and self._state >= LinkState.SUSPECT:
            self._state = LinkState.SUSPECT
            self._reason = f"{self._unanswered} requests in a row without a chunk: {reason}"
            if now_s >= self._hold_until_s:
                self._hold_until_s = now_s + self._hold.next_s()
                self._held_round_trip_s = self._round_trip_s

    def lost(self, now_s: float, reason: str) -> None:
        """The connection is closed or another worker answers: handshake anew, at once."""
        self._state = LinkState.DOWN
        self._reason = reason
        self._probe_at_s = now_s

    def refused(self, now_s: float, reason: str) -> None:
        """The worker cannot serve this robot; it may be replaced, so probing goes on."""
        self._go_down(now_s, reason)

    def _go_down(self, now_s: float, reason: str) -> None:
        self._state = LinkState.DOWN
        self._reason = reason
        self._probe_at_s = now_s + self._backoff.next_s()
