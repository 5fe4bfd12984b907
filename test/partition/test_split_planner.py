"""The planner sends what is answered soonest, and does not change its mind for trifles."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ros_vla_accel.partition.split_planner import Form, FormCost, PlannerConfig, SplitPlanner

IMAGES = {
    "raw": FormCost(0.0005, 1_843_200),
    "jpeg": FormCost(0.004, 90_000),
    "png": FormCost(0.012, 900_000),
}
FEATURES = {"vision": FormCost(0.010, 40_000), "backbone": FormCost(0.025, 60_000)}
CLOUD = {"vision": 0.004, "backbone": 0.006, "head": 0.040, "decode": 0.001}
QUICK = {"vision": 0.001, "backbone": 0.001, "head": 0.002, "decode": 0.001}
GIGABIT, SLOW = 1e9, 5e6


def planner(edge=None, cloud=None, **settings) -> SplitPlanner:
    planner = SplitPlanner(PlannerConfig(**settings))
    planner.note_edge({**IMAGES, **FEATURES} if edge is None else edge)
    planner.note_reply("jpeg", CLOUD if cloud is None else cloud)
    return planner


def settled(planner: SplitPlanner, bandwidth_bit_s: float, round_trip_s: float = 0.02) -> Form:
    for tenth in range(50):
        planner.plan(tenth / 10, round_trip_s, bandwidth_bit_s)
    return planner.form


@pytest.mark.parametrize(
    ("case", "edge", "cloud", "bandwidth_bit_s", "expected"),
    [
        ("a fast link takes JPEG", None, CLOUD, 100e6, Form("observation", "jpeg")),
        ("a faster one raw images", None, QUICK, 20e9, Form("observation", "raw")),
        ("a slow link gets the smallest", None, CLOUD, SLOW, Form("vision", "jpeg")),
        (
            "a slow worker leaves more to the edge",
            None,
            {"vision": 0.2, "backbone": 0.3, "head": 0.04},
            GIGABIT,
            Form("backbone", "jpeg"),
        ),
        (
            "a slow edge leaves all to the worker",
            {**IMAGES, "vision": FormCost(0.3, 100), "backbone": FormCost(0.6, 100)},
            CLOUD,
            SLOW,
            Form("observation", "jpeg"),
        ),
        ("a policy without stages is not cut", IMAGES, CLOUD, SLOW, Form("observation", "jpeg")),
        ("an unmeasured link counts as slow", None, CLOUD, math.nan, Form("vision", "jpeg")),
        ("nothing measured, nothing changed", {}, CLOUD, SLOW, Form("observation", "jpeg")),
    ],
)
def test_what_is_sent(case, edge, cloud, bandwidth_bit_s, expected):
    assert settled(planner(edge, cloud), bandwidth_bit_s) == expected, case


def test_no_cut_before_an_answer_to_a_whole_observation():
    planner = SplitPlanner(PlannerConfig())
    planner.note_edge({**IMAGES, **FEATURES})
    assert settled(planner, SLOW) == Form("observation", "jpeg")
    planner.note_reply("backbone", {"head": 0.04})
    assert settled(planner, SLOW) == Form("observation", "jpeg")
    planner.note_reply("jpeg", CLOUD)
    assert settled(planner, SLOW).cut == "vision"


def test_what_the_user_fixes_stays():
    fixed = planner(cut="backbone", encoding="png")
    assert settled(fixed, GIGABIT) == Form("backbone", "png")
    lossless = planner(cut="observation", encoding="png")
    assert settled(lossless, SLOW) == Form("observation", "png")
    assert settled(planner(cut="observation"), SLOW) == Form("observation", "jpeg")


def test_a_form_that_is_no_longer_possible_is_left_at_once():
    plan = planner()
    assert settled(plan, SLOW).cut == "vision"
    plan.note_edge(IMAGES)
    assert plan.plan(5.0, 0.02, SLOW) == Form("observation", "jpeg")


def test_a_change_takes_two_seconds_and_a_clear_gain():
    plan = planner()
    assert settled(plan, 100e6) == Form("observation", "jpeg")
    assert plan.plan(10.0, 0.02, SLOW).cut == "observation"
    assert plan.plan(11.9, 0.02, SLOW).cut == "observation"
    assert plan.plan(12.1, 0.02, SLOW).cut == "vision"
    # A gain of a few percent is none.
    near = {**IMAGES, "vision": FormCost(0.010, 40_000), "backbone": FormCost(0.014, 40_000)}
    plan.note_edge(near)
    assert settled(plan, SLOW).cut == "vision"


def test_the_plan_is_told_the_one_in_use_first():
    plan = planner()
    settled(plan, SLOW)
    assert plan.describe().startswith("vision ")
    assert "; backbone " in plan.describe()


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="cut is 'head'; choose from auto"):
        PlannerConfig(cut="head")
    with pytest.raises(ValueError, match="encoding is 'gif'"):
        PlannerConfig(encoding="gif")


@settings(deadline=None)
@given(st.lists(st.floats(1e5, 1e10) | st.just(math.nan), min_size=1, max_size=120))
def test_whatever_the_link_does_changes_are_two_seconds_apart(bandwidths):
    plan = planner()
    changed_s = [-math.inf]
    for tick, bandwidth in enumerate(bandwidths):
        before = plan.form
        if plan.plan(tick * 0.2, 0.02, bandwidth) != before:
            assert tick * 0.2 - changed_s[-1] >= plan.config.hold_s - 1e-9
            changed_s.append(tick * 0.2)
            assert plan.expected_s[plan.form] <= min(plan.expected_s.values())
