import math
from typing import Any

import pytest

from ros_vla_accel.partition.latency import LatencyWindow
from ros_vla_accel.partition.link import LinkState
from ros_vla_accel.partition.route import Form, Route, RouteConfig, RouteDecider
from ros_vla_accel.partition.triggers import TriggerSignals


@pytest.mark.parametrize("health", list(LinkState))
def test_auto_takes_the_cloud_only_while_the_link_is_healthy(health: LinkState) -> None:
    decision = RouteDecider(RouteConfig(mode="auto")).decide(0, health)
    assert (decision.route is Route.CLOUD) == (health is LinkState.HEALTHY)
    assert decision.reason == f"cloud {health.name.lower()}"


@pytest.mark.parametrize("health", list(LinkState))
@pytest.mark.parametrize(("mode", "route"), [("edge", Route.EDGE), ("cloud", Route.CLOUD)])
def test_fixed_modes_do_not_look_at_the_link(mode: str, route: Route, health: LinkState) -> None:
    assert RouteDecider(RouteConfig(mode=mode)).decide(0, health).route is route


def test_decision_expires_and_carries_how_to_send() -> None:
    config = RouteConfig(validity_s=0.5, deadline_s=0.25)
    decision = RouteDecider(config).decide(1_000, LinkState.HEALTHY, Form("vision", "raw"))
    assert decision.valid_until_ns == 500_001_000
    assert (decision.deadline_s, decision.cut, decision.encoding) == (0.25, "vision", "raw")


def test_preempt_raises_the_sequence_of_later_decisions() -> None:
    decider = RouteDecider(RouteConfig())
    before = decider.decide(0, LinkState.DOWN).preempt_seq
    decider.preempt(0)
    assert decider.decide(0, LinkState.DOWN).preempt_seq == before + 1
    assert decider.decide(1, LinkState.DOWN).preempt_seq == before + 1


@pytest.mark.parametrize(
    ("settings", "health", "granted"),
    [
        ({"mode": "auto"}, LinkState.HEALTHY, True),
        ({"mode": "auto"}, LinkState.SUSPECT, False),
        ({"mode": "cloud"}, LinkState.DOWN, True),
        ({"mode": "edge"}, LinkState.HEALTHY, False),
        ({"mode": "cloud", "preempt": False}, LinkState.HEALTHY, False),
    ],
)
def test_preemption_is_granted_only_where_the_cloud_is_asked(
    settings: dict[str, Any], health: LinkState, granted: bool
) -> None:
    decider = RouteDecider(RouteConfig(**settings))
    assert decider.preempt(0, health) is granted
    assert decider.preempt_seq == int(granted)


def test_decision_tells_the_most_important_motion_since_the_one_before() -> None:
    decider = RouteDecider(RouteConfig())
    calm = TriggerSignals(5, 0.1, 30.0, 0.0, 2.0, 0.75, 0.5, False, "redundant")
    for signals in (calm, calm._replace(critical=True, importance=3.0, reason="torque"), calm):
        decider.note(signals)
    decision = decider.decide(9, LinkState.HEALTHY)
    assert (decision.importance, decision.reason) == (3.0, "cloud healthy, critical torque")
    decider.note(calm)
    decision = decider.decide(9, LinkState.HEALTHY)
    assert (decision.importance, decision.reason) == (0.5, "cloud healthy")
    assert decider.decide(9, LinkState.HEALTHY).importance == 0.0


@pytest.mark.parametrize(
    ("setting", "text"),
    [({"mode": "fog"}, "choose from edge, cloud, auto"), ({"deadline_s": 0.0}, "must lie in")],
)
def test_a_setting_that_makes_no_sense_is_named(setting: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is .*{text}"):
        RouteConfig(**setting)


def test_latency_window_gives_quantiles_of_the_newest_durations() -> None:
    window = LatencyWindow(size=100)
    assert math.isnan(window.p95_s)
    for duration in range(1, 201):
        window.add(float(duration))
    assert (window.p50_s, window.p95_s) == (150.0, 195.0)


def test_latency_window_ignores_durations_across_a_reset_clock() -> None:
    window = LatencyWindow()
    window.add(-3.0)
    window.add(math.nan)
    assert math.isnan(window.p50_s)


CALM = TriggerSignals(1_000, 0.1, 30.0, 0.0, 0.1, 0.5, 0.1, False, "redundant", True)
TOUCH = CALM._replace(critical=True, importance=3.0, reason="torque")
BLIND = CALM._replace(reason="no effort, acceleration alone", sees=False)


def test_reuse_needs_triggers_that_see_the_motion_of_now() -> None:
    decider = RouteDecider(RouteConfig(reuse=True))
    assert not decider.decide(1_000, LinkState.HEALTHY).reuse, "no sample yet"
    decider.note(CALM)
    assert decider.decide(1_000, LinkState.HEALTHY).reuse
    assert decider.decide(250_001_000, LinkState.HEALTHY).reuse
    assert not decider.decide(250_001_001, LinkState.HEALTHY).reuse, "silent joints"
    decider.note(BLIND)
    assert not decider.decide(1_000, LinkState.HEALTHY).reuse
    off = RouteDecider(RouteConfig())
    off.note(CALM)
    assert not off.decide(1_000, LinkState.HEALTHY).reuse


@pytest.mark.parametrize("end", [TOUCH, BLIND])
def test_the_sample_that_ends_reuse_makes_a_decision_due_once(end: TriggerSignals) -> None:
    decider = RouteDecider(RouteConfig(reuse=True))
    assert not decider.note(CALM)
    decider.decide(1_000, LinkState.HEALTHY)
    assert not decider.note(CALM)
    assert decider.note(end)
    decision = decider.decide(1_000, LinkState.HEALTHY)
    assert (decision.reuse, decision.critical) == (end.sees, end.critical)
    assert not decider.note(end)


def test_critical_takes_the_cloud_for_the_deadline_of_a_preemption_alone() -> None:
    decider = RouteDecider(RouteConfig(mode="critical", deadline_s=0.3))
    assert decider.decide(0, LinkState.HEALTHY).route is Route.EDGE
    assert not decider.preempt(1_000, LinkState.SUSPECT)
    assert decider.preempt(1_000, LinkState.HEALTHY)
    for now_ns, health, route in (
        (1_000, LinkState.HEALTHY, Route.CLOUD),
        (300_001_000, LinkState.HEALTHY, Route.CLOUD),
        (300_001_001, LinkState.HEALTHY, Route.EDGE),
        (2_000, LinkState.SUSPECT, Route.EDGE),
        (999, LinkState.HEALTHY, Route.EDGE),  # The clock went back.
    ):
        assert decider.decide(now_ns, health).route is route
