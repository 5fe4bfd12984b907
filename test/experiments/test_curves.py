from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ros_vla_accel.experiments.curves import describe_times, draw_curves, read_log, smooth

HEAD = "step,action,auxiliary,balance,seconds\n"


def test_smoothing_is_the_mean_of_the_values_so_far_within_the_window() -> None:
    np.testing.assert_allclose(smooth(np.array([1.0, 3.0, 5.0, 7.0]), 2), [1, 2, 4, 6])


def test_the_losses_of_a_run_become_a_picture(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(HEAD + "".join(f"{i},{2 / i},{1 / i},1.0,0.5\n" for i in range(1, 90)))
    draw_curves(log, [30, 60], tmp_path / "curves.png")
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert min(picture.shape[:2]) > 400
    line = np.array([0x79, 0x4E, 0x1F])  # BGR, of the smoothed losses
    assert (np.abs(picture.astype(int) - line).max(-1) < 20).sum() > 1000


def test_a_run_says_how_long_it_took(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(HEAD + "1,2,1,1,30\n2,2,1,1,30\n3,2,1,1,60\n")
    said = describe_times(tmp_path / "log.csv", 600)
    assert said == "3 steps in 2 minutes (30.00 s each in the median); recording 10 minutes."
    assert "was not kept" in describe_times(tmp_path / "log.csv", float("nan"))


def test_a_run_without_steps_has_no_curves(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(HEAD)
    with pytest.raises(ValueError, match="has no rows; train first"):
        read_log(tmp_path / "log.csv")
