"""The link's health and estimates, under a clock that the test owns."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ros_vla_accel.partition.link import LinkConfig, LinkEstimate, LinkHealth, LinkState

DOWN, PROBING = LinkState.DOWN, LinkState.PROBING
SUSPECT, HEALTHY = LinkState.SUSPECT, LinkState.HEALTHY


def _healthy(at_s: float = 10.0) -> LinkHealth:
    health = LinkHealth()
    health.probe_sent(at_s)
    health.accepted(at_s)
    return health


def test_a_new_link_is_down_and_may_be_probed_at_once() -> None:
    health = LinkHealth()
    assert health.state is DOWN
    assert health.probe_due(0.0)


def test_an_accepted_handshake_makes_it_healthy_without_a_reason() -> None:
    health = _healthy()
    assert (health.state, health.reason) == (HEALTHY, "")


def test_silence_makes_it_suspect_then_down_within_a_second() -> None:
    health = _healthy(10.0)
    assert health.tick(10.4) is HEALTHY
    assert health.tick(10.46) is SUSPECT
    assert health.tick(10.89) is SUSPECT
    assert health.tick(10.91) is DOWN
    assert health.reason == "no answer for 0.9 s"


def test_a_word_from_the_worker_ends_the_suspicion() -> None:
    health = _healthy(10.0)
    health.tick(10.5)
    health.heard(10.6)
    assert (health.state, health.reason) == (HEALTHY, "")


def test_a_word_outside_a_handshake_does_not_raise_a_link_that_is_down() -> None:
    health = _healthy(10.0)
    health.lost(10.1, "closed")
    health.heard(10.2)
    assert health.state is DOWN


def test_probes_back_off_up_to_a_second_with_jitter_and_start_over_after_success() -> None:
    config, health, now_s, waits = LinkConfig(), LinkHealth(seed=3), 0.0, []
    for _ in range(8):
        health.probe_sent(now_s)
        now_s += config.probe_timeout_s
        assert health.tick(now_s) is DOWN
        waits.append(health.next_change_s - now_s)
        now_s = health.next_change_s
    for wait, nominal in zip(waits, (0.1, 0.2, 0.4, 0.8, 1, 1, 1, 1), strict=True):
        assert 0.8 * nominal <= wait <= 1.2 * nominal
    assert len(set(waits)) == len(waits)
    health.probe_sent(now_s)
    health.accepted(now_s)
    health.refused(now_s, "other policy")
    assert health.next_change_s - now_s <= 0.12


def test_jitter_differs_between_robots() -> None:
    waits = set()
    for seed in range(5):
        health = LinkHealth(seed=seed)
        health.refused(0.0, "no")
        waits.add(health.next_change_s)
    assert len(waits) == 5


def test_a_lost_connection_is_probed_at_once() -> None:
    health = _healthy(10.0)
    health.lost(10.1, "connection closed")
    assert health.probe_due(10.1)
    assert health.reason == "connection closed"


def test_unanswered_requests_hold_the_link_suspect_though_pongs_arrive() -> None:
    health, now_s = _healthy(10.0), 10.0
    for _ in range(2):
        health.unanswered(now_s, "late")
    assert health.state is HEALTHY
    health.unanswered(now_s, "late")
    assert health.state is SUSPECT
    assert health.reason == "3 requests in a row without a chunk: late"
    health.heard(now_s + 0.5)
    assert health.state is SUSPECT
    for step in range(1, 13):
        health.heard(now_s + 0.1 * step)
    assert health.state is HEALTHY
    health.unanswered(now_s + 1.3, "late")
    assert health.state is SUSPECT
    for step in range(1, 13):
        health.heard(now_s + 1.3 + 0.1 * step)
    assert health.state is SUSPECT, "the second hold is twice as long"


@pytest.mark.parametrize(("held_s", "state"), [(0.3, HEALTHY), (0.012, SUSPECT)])
def test_pings_that_return_faster_than_before_the_hold_end_it(
    held_s: float, state: LinkState
) -> None:
    health = _healthy(10.0)
    health.returned(10.1, held_s)
    for _ in range(3):
        health.unanswered(10.2, "late")
    health.returned(10.3, held_s)
    assert health.state is SUSPECT
    health.returned(10.5, 0.01)
    assert health.state is state, "a worker that is slow stays so, though its pings are quick"


def test_an_answered_request_ends_the_hold() -> None:
    health = _healthy(10.0)
    for _ in range(3):
        health.unanswered(10.0, "late")
    health.answered(10.1)
    assert health.state is HEALTHY
    health.unanswered(10.2, "late")
    assert health.state is HEALTHY


@pytest.mark.parametrize(
    "values",
    [
        {"ping_interval_s": 1.0},
        {"backoff_min_s": 0.0},
        {"hold_min_s": 9.0},
        {"jitter": 1.0},
        {"unanswered_limit": 0},
    ],
)
def test_timing_constants_that_contradict_each_other_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="link: "):
        LinkConfig(**values)  # type: ignore[arg-type]


class LinkMachine(RuleBasedStateMachine):
    """Whatever happens: no health without a handshake or after silence, and never stuck down."""

    @initialize()
    def start(self) -> None:
        self.config, self.health, self.now_s = LinkConfig(), LinkHealth(), 100.0
        self.handshaken, self.heard_s = False, -math.inf

    @rule(passed_s=st.floats(0, 2))
    def time_passes(self, passed_s: float) -> None:
        self.now_s += passed_s
        before = self.health.next_change_s
        old = self.health.state
        self.health.tick(self.now_s)
        if self.now_s < before and old in (PROBING, HEALTHY, SUSPECT):
            assert self.health.state is old
        if self.health.state is DOWN:
            self.handshaken = False

    @rule()
    def probe(self) -> None:
        if self.health.probe_due(self.now_s):
            self.health.probe_sent(self.now_s)
            assert self.health.state is PROBING

    @rule()
    def accept(self) -> None:
        if self.health.state is PROBING:
            self.health.accepted(self.now_s)
            self.handshaken, self.heard_s = True, self.now_s

    @rule(answered=st.booleans())
    def hear(self, answered: bool) -> None:
        self.heard_s = self.now_s
        (self.health.answered if answered else self.health.heard)(self.now_s)

    @rule(round_trip_s=st.floats(0.0, 0.4))
    def ping(self, round_trip_s: float) -> None:
        self.heard_s = self.now_s
        self.health.returned(self.now_s, round_trip_s)

    @rule()
    def fail(self) -> None:
        self.health.unanswered(self.now_s, "late")

    @rule(refused=st.booleans())
    def fall(self, refused: bool) -> None:
        (self.health.refused if refused else self.health.lost)(self.now_s, "gone")
        self.handshaken = False

    @invariant()
    def health_needs_a_handshake_and_a_recent_word(self) -> None:
        if self.health.state >= SUSPECT:
            assert self.handshaken
        if self.health.state is HEALTHY:
            assert self.health.reason == ""
            assert self.now_s - self.heard_s < self.config.suspect_after_s
        else:
            assert self.health.reason

    @invariant()
    def a_link_that_is_down_is_probed_again_soon(self) -> None:
        if self.health.state is DOWN:
            longest_s = self.config.backoff_max_s * (1 + self.config.jitter)
            assert self.health.next_change_s <= self.now_s + longest_s


LinkMachine.TestCase.settings = settings(
    deadline=None, derandomize=True, max_examples=60, stateful_step_count=40
)
TestLinkMachine = LinkMachine.TestCase


def test_estimates_are_nan_before_the_first_sample() -> None:
    estimate = LinkEstimate()
    values = (estimate.round_trip_s, estimate.round_trip_p95_s, estimate.bandwidth_bit_s)
    assert all(math.isnan(value) for value in (*values, estimate.worker_p50_s))


def test_the_round_trip_is_smoothed_and_its_p95_sees_the_tail() -> None:
    estimate = LinkEstimate()
    for k in range(100):
        estimate.add_round_trip(0.010 if k % 10 else 0.100)
    assert 0.010 < estimate.round_trip_s < 0.040
    assert estimate.round_trip_p95_s == pytest.approx(0.100)


def test_old_round_trips_leave_the_window() -> None:
    estimate = LinkEstimate(window=8)
    for seconds in [1.0] * 8 + [0.01] * 8:
        estimate.add_round_trip(seconds)
    assert estimate.round_trip_p95_s == pytest.approx(0.01)


def test_bandwidth_is_what_remains_after_worker_and_round_trip() -> None:
    estimate = LinkEstimate()
    estimate.add_round_trip(0.02)
    for _ in range(20):
        estimate.add_request(0.02 + 0.08 + 0.1, worker_s=0.1, inference_s=0.09, sent_bytes=10**6)
    assert estimate.bandwidth_bit_s == pytest.approx(1e8)
    assert estimate.worker_p50_s == pytest.approx(0.09)


def test_small_requests_say_nothing_about_bandwidth() -> None:
    estimate = LinkEstimate()
    estimate.add_round_trip(0.02)
    estimate.add_request(0.05, 0.01, 0.01, sent_bytes=1000)
    assert math.isnan(estimate.bandwidth_bit_s)
