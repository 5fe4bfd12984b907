"""bench ros measures two processes and writes the keys that others read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ros_vla_accel.bench import main
from ros_vla_accel.bench.common import Result


@pytest.mark.slow
def test_a_short_run_loses_no_stream_and_writes_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "12")
    path = tmp_path / "ros.json"
    assert main(["ros", "--seconds", "3", "--repeats", "1", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert set(result) == {"name", "machine", "config", "rows", "summary"}
    assert {"joint_states_p99_ms", "cpu_percent", "lost_ratio"} <= set(result["summary"])
    assert {row["stream"] for row in result["rows"]} == {"joint_states", "front", "wrist"}
    assert all(row["received"] > 0 for row in result["rows"])


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) == 2
    assert "'nothing'" in capsys.readouterr().err


def test_a_figure_that_is_no_number_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    Result("x", {}, [{"value": float("nan")}], {"a": 1.0}, machine={}).write(path)
    assert json.loads(path.read_text())["rows"] == [{"value": None}]
