import numpy as np
import pytest

from ros_vla_accel.partition.baselines import (
    CloudOnly,
    EdgeOnly,
    FixedPeriod,
    UncertaintyThreshold,
    disagreement,
)
from ros_vla_accel.partition.route import Route

CHUNKS = np.random.default_rng(0).normal(0, 0.1, (4, 16, 4)).astype(np.float32)


def test_edge_only_and_cloud_only_never_change_their_mind() -> None:
    for baseline, route in ((EdgeOnly(), Route.EDGE), (CloudOnly(), Route.CLOUD)):
        assert {baseline.route() for _ in range(5)} == {route}
        assert not baseline.doubts(CHUNKS)


def test_fixed_period_asks_the_cloud_first_and_then_every_so_many() -> None:
    baseline = FixedPeriod(3)
    assert [int(baseline.route()) for _ in range(7)] == [1, 0, 0, 1, 0, 0, 1]
    with pytest.raises(ValueError, match="period 0"):
        FixedPeriod(0)


def test_disagreement_is_the_variance_over_the_samples() -> None:
    assert disagreement(np.repeat(CHUNKS[:1], 4, axis=0)) == 0.0
    assert disagreement(CHUNKS) == pytest.approx(0.01, rel=0.3)
    direct = ((CHUNKS - CHUNKS.mean(0)) ** 2).mean()
    assert disagreement(CHUNKS) == pytest.approx(float(direct), rel=1e-5)


def test_uncertainty_starts_at_the_edge_and_doubts_above_its_threshold() -> None:
    level = disagreement(CHUNKS)
    assert UncertaintyThreshold(level).route() is Route.EDGE
    assert not UncertaintyThreshold(level).doubts(CHUNKS)
    assert UncertaintyThreshold(0.9 * level).doubts(CHUNKS)
    with pytest.raises(ValueError, match="samples 1"):
        UncertaintyThreshold(0.1, samples=1)
