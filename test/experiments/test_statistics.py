from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ros_vla_accel.experiments.statistics import (
    paired_difference,
    percentile,
    ratio_of_means,
    wilson_interval,
    write_json,
)


def test_wilson_interval_agrees_with_published_values() -> None:
    # Newcombe (1998), table I: 81/263, 15/148, 0/20, 1/29.
    for successes, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson_interval(successes, trials)
        assert found == pytest.approx((low, high), abs=1e-4)


def test_wilson_interval_of_no_trials_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_more_successes_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="successes 3 must lie in"):
        wilson_interval(3, 2)


def test_percentiles_interpolate_and_leave_out_what_was_not_measured() -> None:
    assert percentile([4.0, 1.0, math.nan, 3.0, 2.0], 0.5) == 2.5
    assert math.isnan(percentile([], 0.5))


def test_results_are_written_as_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    write_json(path, "eval", {"a": 1}, [{"rate": math.nan}], {"best": 1.0})
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert set(content) == {"name", "machine", "config", "rows", "summary"}
    assert content["rows"] == [{"rate": None}]


def test_paired_difference_is_that_of_the_discordant_pairs() -> None:
    ours, theirs = [True] * 90 + [False] * 10, [True] * 85 + [False] * 15
    difference, low, high = paired_difference(ours, theirs)
    assert difference == pytest.approx(0.05)
    assert 0 < low < 0.05 < high < 0.11
    assert paired_difference(theirs, ours) == pytest.approx((-0.05, -high, -low))
    # Without a single discordant pair the interval is still not a point.
    assert paired_difference(ours, ours)[1] < 0 < paired_difference(ours, ours)[2]


def test_paired_difference_wants_pairs() -> None:
    with pytest.raises(ValueError, match="2 and 1 outcomes are not pairs"):
        paired_difference([True, False], [True])
    assert math.isnan(paired_difference([], [])[0])


def test_ratio_of_means_pools_values_and_resamples_episodes() -> None:
    ours, theirs = [[1.0, 3.0], [2.0]], [[4.0], [4.0, 4.0, 4.0]]
    assert ratio_of_means(ours, theirs) == (2.0, 2.0, 2.0)
    rng = np.random.default_rng(0)
    ours = [list(rng.exponential(1.0, 5)) for _ in range(50)]
    theirs = [list(rng.exponential(2.0, 3)) for _ in range(50)]
    ratio, low, high = ratio_of_means(ours, theirs)
    assert low < 2.0 < high
    assert low < ratio < high
    assert all(math.isnan(value) for value in ratio_of_means([], []))
    with pytest.raises(ValueError, match="pairs"):
        ratio_of_means([[1.0]], [])
