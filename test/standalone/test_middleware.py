"""Which middleware is chosen, and what it says when it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ros_vla_accel import middleware

CODE = "from ros_vla_accel import middleware; print(middleware.install())"


def run(code: str = CODE, **environment: str) -> subprocess.CompletedProcess[str]:
    unset = ("AMENT_PREFIX_PATH", "ROS_DISTRO", middleware.VARIABLE)
    base = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**base, **environment}
    )


def test_without_ros_it_is_standalone_and_says_so() -> None:
    done = run()
    assert done.stdout.strip() == "standalone"
    assert "middleware: standalone" in done.stderr


def test_a_sourced_ros_that_cannot_be_imported_is_an_error() -> None:
    done = run(ROS_DISTRO="jazzy")
    assert done.returncode != 0
    assert "rclpy cannot be imported" in done.stderr
    assert f"{middleware.VARIABLE}=standalone" in done.stderr


def test_standalone_may_be_forced_beside_a_sourced_ros() -> None:
    done = run(ROS_DISTRO="jazzy", **{middleware.VARIABLE: "standalone"})
    assert done.stdout.strip() == "standalone"


def test_an_unknown_choice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(middleware.VARIABLE, "fast")
    with pytest.raises(middleware.MiddlewareError, match="'fast'"):
        middleware.choice()


def test_the_choice_is_told() -> None:
    assert middleware.install() == middleware.selected() == "standalone"


def test_forced_standalone_gives_its_own_messages(tmp_path: Path) -> None:
    for package in ("sensor_msgs", "sensor_msgs/msg"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("class JointState: pass")
    code = f"{CODE}; from sensor_msgs.msg import JointState; print(JointState().position)"
    done = run(
        code, ROS_DISTRO="jazzy", PYTHONPATH=str(tmp_path), **{middleware.VARIABLE: "standalone"}
    )
    assert done.stdout.splitlines() == ["standalone", "array('d')"]
