"""Only rows that the executor is about to play count as plan."""

import numpy as np
import pytest

from ros_vla_accel.kinematics.action_motion import ActionMotion
from ros_vla_accel.precision.planned_rows import KEPT_CHUNKS, PlannedRows

PERIOD_S = 0.05
MOTION = ActionMotion("cartesian_velocity", {0: "linear.x"}, PERIOD_S)


@pytest.fixture
def rows() -> PlannedRows:
    rows = PlannedRows(MOTION, PERIOD_S, stale_s=0.25)
    rows.take_chunk(7, np.linspace(0.1, 0.4, 4)[:, None], PERIOD_S)
    return rows


def test_the_rows_after_the_executing_one_are_to_come(rows: PlannedRows) -> None:
    rows.take_state(True, 7, row=1)
    plan = rows.coming()
    assert plan is not None
    np.testing.assert_allclose(plan[:, 0, 0], [0.3 * PERIOD_S, 0.4 * PERIOD_S])


def test_nothing_is_known_before_executor_state_and_after_the_last_row(rows: PlannedRows) -> None:
    assert rows.coming() is None
    rows.take_state(True, 7, row=3)
    assert rows.coming() is None
    rows.take_state(True, 7, row=10**9)
    assert rows.coming() is None


@pytest.mark.parametrize("state", [(False, 7, 0), (True, 8, 0), (True, 0, 0)])
def test_a_hold_or_an_unknown_chunk_has_no_plan(rows: PlannedRows, state) -> None:
    rows.take_state(*state)
    assert rows.coming() is None


def test_a_state_that_is_not_renewed_ends_the_plan(rows: PlannedRows) -> None:
    rows.take_state(True, 7, row=0)
    assert [rows.coming() is not None for _ in range(7)] == [True] * 5 + [False] * 2
    rows.take_state(True, 7, row=0)
    assert rows.coming() is not None


@pytest.mark.parametrize(
    ("actions", "period_s"),
    [
        (np.full((4, 1), np.nan), PERIOD_S),
        (np.zeros((4, 1)), 0.1),
        (np.zeros((0, 1)), PERIOD_S),
        (np.zeros((4, 0)), PERIOD_S),
        (np.zeros(4), PERIOD_S),
    ],
)
def test_a_chunk_that_the_executor_drops_is_no_plan(rows: PlannedRows, actions, period_s) -> None:
    rows.take_chunk(8, actions, period_s)
    rows.take_state(True, 8, row=0)
    assert rows.coming() is None


def test_memory_is_bounded(rows: PlannedRows) -> None:
    for request_id in range(8, 8 + KEPT_CHUNKS):
        rows.take_chunk(request_id, np.zeros((10_000, 1)), PERIOD_S)
    rows.take_state(True, 7, row=0)
    assert rows.coming() is None
    rows.take_state(True, 8, row=0)
    plan = rows.coming()
    assert plan is not None
    assert len(plan) < 200
