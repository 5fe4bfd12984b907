import math

import pytest

from ros_vla_accel.partition.latency import LatencyWindow
from ros_vla_accel.partition.link import LinkState
from ros_vla_accel.partition.route import Route, RouteConfig, RouteDecider


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
    config = RouteConfig(validity_s=0.5, deadline_s=0.25, cut="vision", encoding="raw")
    decision = RouteDecider(config).decide(1_000, LinkState.HEALTHY)
    assert decision.valid_until_ns == 500_001_000
    assert (decision.deadline_s, decision.cut, decision.encoding) == (0.25, "vision", "raw")


def test_preempt_raises_the_sequence_of_later_decisions() -> None:
    decider = RouteDecider(RouteConfig())
    before = decider.decide(0, LinkState.DOWN).preempt_seq
    decider.preempt()
    assert decider.decide(0, LinkState.DOWN).preempt_seq == before + 1
    assert decider.decide(1, LinkState.DOWN).preempt_seq == before + 1


@pytest.mark.parametrize("setting", [{"mode": "fog"}, {"cut": "head"}, {"encoding": "gif"}])
def test_unknown_choice_is_an_error_that_lists_the_known_ones(setting: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="choose from"):
        RouteConfig(**setting)  # type: ignore[arg-type]


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
