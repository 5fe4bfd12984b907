import json
from pathlib import Path

from ros_vla_accel.bench import main


def test_bench_trigger_writes_its_figures_and_the_windows_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "trigger.json"
    assert main(["trigger", "--seconds", "1.5", "--repeats", "1", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert {row["rate_hz"] for row in result["rows"]} == {100, 500, 1000}
    summary = result["summary"]
    assert summary["window_error"] < 1e-6
    assert 0 < summary["p50_us"] <= summary["p99_us"]
    assert summary["us_per_sample"] < 200, "an order of magnitude above the target of 20"
    assert summary["partition_us"] == summary["us_per_sample"]
    assert 0 < summary["quantization_us"] < 200
    assert 0 < summary["quantization_state_kb"] < 64
    assert 0 < summary["trigger_overhead"] < 0.1
    assert 0.01 < summary["edge_control_core_share"] < 1
    run = result["config"]["edge_control"][0]
    assert run["joint_states"] > 500
    assert run["ticks"] > 20
