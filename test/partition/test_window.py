import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ros_vla_accel.partition.window import SlidingWindow

MS = 1_000_000


def test_statistics_are_exact_over_a_million_samples_with_spikes_and_a_large_mean() -> None:
    rng = np.random.default_rng(0)
    count, span = 1_000_000, 500
    values = 1e4 + rng.normal(0.0, 1e-2, count)
    values[rng.integers(0, count, 1000)] += 1e7
    window = SlidingWindow(0.5)
    for index, value in enumerate(values.tolist()):
        window.push(index * MS, value)
        if index % 101 == 0:
            last = values[max(0, index + 1 - span) : index + 1]
            mean, deviation = window.mean_std()
            assert mean == pytest.approx(last.mean(), rel=1e-12)
            assert deviation == pytest.approx(last.std(), rel=1e-6, abs=1e-9)
    fresh = SlidingWindow(0.5)
    for index in range(count - span, count):
        fresh.push(index * MS, float(values[index]))
    assert window.mean_std() == fresh.mean_std(), "the past has left no trace"


@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.floats(-1e9, 1e9, allow_subnormal=False)),
        min_size=1,
        max_size=80,
    )
)
def test_window_holds_the_last_duration_whatever_the_stamps(steps: list[tuple[int, float]]):
    window, stamp_ns, seen = SlidingWindow(0.2), 0, []
    for step_ms, value in steps:
        stamp_ns += step_ms * MS
        window.push(stamp_ns, value)
        seen.append((stamp_ns, value))
    last = np.array([value for at_ns, value in seen if at_ns > stamp_ns - 200 * MS])
    mean, deviation = window.mean_std()
    assert len(window) == len(last)
    assert mean == window.mean()
    assert mean == pytest.approx(last.mean(), rel=1e-9, abs=1e-6)
    assert deviation == pytest.approx(last.std(), rel=1e-6, abs=1e-5)


def test_window_is_filled_once_values_came_for_its_duration() -> None:
    window = SlidingWindow(0.1)
    assert not window.filled(0)
    for stamp_ms in range(0, 100, 10):
        window.push(stamp_ms * MS, 1.0)
    assert not window.filled(99 * MS)
    assert window.filled(100 * MS)
    window.clear()
    assert not window.filled(100 * MS)
    assert math.isnan(window.mean())
    assert all(map(math.isnan, window.mean_std()))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_refused_and_leaves_the_window_as_it_was(value: float):
    window = SlidingWindow(0.1)
    window.push(0, 2.0)
    with pytest.raises((ValueError, OverflowError)):
        window.push(MS, value)
    assert window.mean_std() == (2.0, 0.0)


def test_a_window_without_duration_is_an_error() -> None:
    with pytest.raises(ValueError, match="duration_s is 0"):
        SlidingWindow(0)
