"""Down-sampling may drop points, never what they showed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ros_vla_accel.replay.report_sampling import break_gaps, keep_changes, keep_extremes

T = np.arange(100_000) * 0.01


def test_a_spike_of_one_sample_survives_among_a_hundred_thousand():
    y = np.zeros(len(T))
    y[54_321], y[7] = 9.0, -4.0
    times, values = keep_extremes(T, y, 2000)
    assert len(times) <= 2002
    assert values.max() == 9.0
    assert times[values.argmax()] == T[54_321]
    assert times[values.argmin()] == T[7]


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=300),
    st.integers(2, 60),
)
def test_what_is_kept_are_points_of_the_signal_in_order_with_its_extremes(values, limit):
    y = np.array(values)
    t = np.arange(len(y), dtype=float)
    times, kept = keep_extremes(t, y, limit)
    assert (np.diff(times) > 0).all()
    np.testing.assert_array_equal(kept, y[times.astype(int)])
    assert times[0] == t[0]
    assert times[-1] == t[-1]
    if not np.isnan(y).all():
        assert np.nanmax(kept) == np.nanmax(y)
        assert np.nanmin(kept) == np.nanmin(y)
    assert np.isnan(kept).any() == np.isnan(y).any()


def test_a_step_signal_loses_no_switch_and_keeps_its_end():
    y = np.repeat([16.0, 8.0, np.nan, 2.0, 16.0], [5, 3, 4, 300, 20])
    times, values = keep_changes(np.arange(len(y)), y)
    np.testing.assert_array_equal(times, [0, 5, 7, 8, 12, 312, 331])
    np.testing.assert_array_equal(values, [16, 8, 8, np.nan, 2, 16, 16])


def test_a_line_breaks_where_the_recording_has_a_gap():
    t = np.concatenate((np.arange(0, 1, 0.01), np.arange(5, 6, 0.01)))
    times, values = break_gaps(t, np.ones(len(t)))
    assert np.flatnonzero(np.isnan(values)).tolist() == [100]
    assert times[100] == t[99]


def test_slow_but_steady_samples_are_no_gap():
    _, values = break_gaps(np.arange(10.0), np.ones(10))
    assert not np.isnan(values).any()
