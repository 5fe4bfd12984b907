from dataclasses import replace
from pathlib import Path

import pytest

from ros_vla_accel.precision import Calibration, CalibrationError, PrecisionConfig

CALIBRATION = Calibration(
    policy="reference",
    identity="ab" * 32,
    source="fk",
    precision=PrecisionConfig(lambda_=0.7, table=((0.2, 4), (0.6, 8)), calibrated=True),
    triggers={"theta_compat": 0.8},
    measured={"correlation": {"fineness": 0.9}},
)


def test_a_saved_calibration_is_read_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "calibration.yaml"
    CALIBRATION.save(path)
    assert Calibration.load(path) == CALIBRATION
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_loaded_counts_as_calibrated(tmp_path: Path) -> None:
    path = tmp_path / "calibration.yaml"
    replace(CALIBRATION, precision=PrecisionConfig()).save(path)
    assert Calibration.load(path).precision.calibrated


def test_another_policy_is_refused_by_name() -> None:
    CALIBRATION.check("ab" * 32)
    with pytest.raises(CalibrationError, match=r"reference \(abababababab\).*\(cdcdcdcdcdcd\)"):
        CALIBRATION.check("cd" * 32)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("schema: 9", "another version"),
        ("[1, 2", "cannot be read"),
        ("schema: 1\nprecision: {lambda: 7}", "lambda is 7"),
        ("schema: 1\nprecision: {}", "'policy'"),
        ("schema: 1\nprecision: 3", "damaged"),
        (
            "schema: 1\nprecision: {}\npolicy: {name: a, identity: b}\nsource: eyes",
            "source is 'eyes'",
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=problem) as error:
        Calibration.load(path)
    assert "c.yaml" in str(error.value)


def test_its_thresholds_replace_the_parameters_and_the_robot_s_timing_stays() -> None:
    parameters = PrecisionConfig(mu95=1.0, stale_s=0.5, look_ahead=3)
    config, source = CALIBRATION.settings(parameters, "auto")
    assert source == "fk"
    assert config == replace(CALIBRATION.precision, stale_s=0.5, look_ahead=3)
    assert config.calibrated


@pytest.mark.parametrize(
    ("parameters", "source", "problem"),
    [
        (PrecisionConfig(), "joint", "motion from 'fk', and the source is 'joint'"),
        (PrecisionConfig(period_s=0.1), "fk", "periods of 0.05 s, and period_s is 0.1"),
    ],
)
def test_a_calibration_of_other_motion_is_refused(
    parameters: PrecisionConfig, source: str, problem: str
) -> None:
    with pytest.raises(CalibrationError, match=problem):
        CALIBRATION.settings(parameters, source)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="nowhere"):
        Calibration.load(tmp_path / "nowhere")
