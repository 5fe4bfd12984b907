"""The fit, on recordings whose truth is known, and the command on a real policy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ros_vla_accel.contracts import ActionChunk
from ros_vla_accel.experiments import calibrate
from ros_vla_accel.experiments.calibration_fit import choose_bits, fit, sensitivity_at, signals_of
from ros_vla_accel.experiments.motion_probe import Recording, chunk_error
from ros_vla_accel.kinematics.increments import Increment
from ros_vla_accel.policies import reference
from ros_vla_accel.precision import Calibration, PrecisionConfig
from ros_vla_accel.sim.env import JointSample

STEPS = 300


def recording(seed: int) -> Recording:
    """Speed swings between rest and 10 mm per period; sensitivity follows the fineness alone."""
    rng = np.random.default_rng(seed)
    speed = 0.005 + 0.005 * np.sin(np.arange(STEPS) / 25 + rng.uniform(0, 6))
    turn = rng.normal(0, 0.01, (STEPS, 3))
    result = Recording("drawer-open-v3", seed, success=True)
    for k in range(STEPS):
        stamp_ns = (k + 1) * 50_000_000
        result.increments.append(Increment(stamp_ns, np.array([speed[k], 0, 0]), turn[k]))
        result.actions.append(np.zeros(4))
        for tick in range(5):
            velocity = np.full(9, speed[k] * 20) + rng.normal(0, 0.01, 9)
            effort = rng.normal(0, 1, 9) + 200 * (k % 50 == 7)
            time_s = 0.05 * k + 0.01 * (tick + 1)
            result.samples.append(JointSample(time_s, np.cumsum(velocity), velocity, effort))
    fineness = signals_of(result, PrecisionConfig(mu95=0.01)).fineness
    result.asked = list(range(0, STEPS, 2))
    result.errors = {
        bits: (size * rng.uniform(0.9, 1.0, len(result.asked))).tolist()
        for bits, size in ((2, 5.0), (4, 0.4), (8, 0.01))
    }
    result.probed = list(range(12, STEPS, 6))
    # 1 mm per full scale in fast transit, 1000 mm at rest; the noise moves the end by 20 mm.
    result.sensitivity = [0.001 * 10 ** (3 * fineness[step]) for step in result.probed]
    result.noise = [0.02] * len(result.probed)
    return result


RECORDINGS = [recording(seed) for seed in range(4)]


def test_fit_finds_what_the_motion_was_made_of() -> None:
    found = fit(RECORDINGS, PrecisionConfig(), replan_rows=8)
    config = found.precision
    assert config.mu95 == pytest.approx(0.01, rel=0.03)
    assert config.lambda_ == 1.0  # Jerk says nothing here.
    assert found.correlation["fineness"] > 0.95
    assert abs(found.correlation["jerk"]) < 0.3
    assert found.tolerance_m == 0.02
    assert (np.diff(found.allowed) <= 0).all()
    bits = [b for _, b in config.table]
    assert bits == sorted(bits)
    # 20 mm allow 10 x full scale in transit, 0.6 at S 0.5, and no error of 8 bits is too large.
    assert bits == [2, 4, 8]
    assert 0.4 < config.table[1][0] < 0.7
    assert config.theta_fp == config.table[-1][0] >= 0.9
    assert config.calibrated


def test_thresholds_make_the_wanted_share_of_control_periods_critical() -> None:
    found = fit(RECORDINGS, PrecisionConfig(), 8).triggers
    speed = [float(np.linalg.norm(s.velocity)) for r in RECORDINGS for s in r.samples]
    assert found["speed_ref"] == pytest.approx(np.quantile(speed, 0.95), rel=1e-3)
    assert found["theta_compat"] > 0 < found["theta_redundancy"]


def test_bits_rise_with_the_score_and_few_inferences_take_the_safer_row() -> None:
    edges, counts = np.linspace(0, 0.5, 6), np.array([50, 50, 3, 50, 50])
    errors = {2: np.full(5, 5.0), 4: np.full(5, 0.4), 8: np.array([0.1, 0.1, 0.1, 0.1, 0.1])}
    allowed = np.array([9.0, 1.0, 9.0, 0.2, 0.05])
    assert choose_bits(edges, allowed, errors, counts) == ((0.1, 2), (0.2, 4), (0.4, 8))
    # A row that would allow fewer bits than the one below it does not get them.
    assert choose_bits(edges, np.array([0.2, 9, 9, 9, 9]), errors, counts + 50) == ((0.5, 8),)


def test_sensitivity_rises_even_where_the_samples_do_not() -> None:
    curve = sensitivity_at(np.array([0.1, 0.2, 0.3]), np.array([3.0, 1.0, 4.0]), np.arange(5) / 10)
    assert curve.tolist() == [2.0, 2.0, 2.0, 4.0, 4.0]


def test_errors_of_velocities_add_up_and_the_gripper_s_do_not() -> None:
    def chunk(actions: np.ndarray) -> ActionChunk:
        return ActionChunk(actions, 0.05, 0, 0, 0, "edge")

    exact = np.zeros((16, 4))
    wrong = exact.copy()
    wrong[:10, 0] = 0.02
    wrong[3, 3] = -0.4
    assert chunk_error(chunk(wrong), chunk(exact), 9) == pytest.approx(np.hypot(9 * 0.1, 0.4))
    wrong[1::2, 0] *= -1
    assert chunk_error(chunk(wrong), chunk(exact), 8) == pytest.approx(0.4)


def test_too_little_to_fit_is_said() -> None:
    with pytest.raises(ValueError, match="raise --episodes or --probes"):
        fit([Recording("drawer-open-v3", 0)], PrecisionConfig(), 8)


def test_a_policy_of_one_width_cannot_be_calibrated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "args.yaml").write_text("quantize: null")
    arguments = ["--policy-args", str(tmp_path / "args.yaml"), "--out", str(tmp_path / "c.yaml")]
    assert calibrate.main(arguments) == 1
    assert "runs at 16 bits only" in capsys.readouterr().err


def test_command_writes_a_file_that_the_policy_accepts(tmp_path: Path) -> None:
    out, figures = tmp_path / "c.yaml", tmp_path / "c.json"
    arguments = ["--tasks", "drawer-open", "--episodes", "2", "--probes", "6", "--directions", "1"]
    arguments += ["--workers", "2", "--out", str(out), "--json", str(figures)]
    assert calibrate.main([*arguments, "--plots", str(tmp_path / "plots")]) == 0
    found = Calibration.load(out)
    found.check(reference().spec.identity)
    assert found.source == "fk"
    assert set(found.triggers) == {"speed_ref", "theta_compat", "theta_redundancy"}
    content = json.loads(figures.read_text())
    for row in content["rows"]:
        # Errors fall with the width: that is what the widths are for.
        means = [np.mean(row["errors"][bits]) for bits in ("2", "4", "8")]
        assert means == sorted(means, reverse=True)
        assert len(row["probed"]) == len(row["sensitivity_m"]) == 6
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == [
        "calibration-sensitivity.png",
        "calibration-table.png",
        "calibration-timeline.png",
    ]
    assert yaml.safe_load(out.read_text())["measured"]["tasks"] == ["drawer-open"]
