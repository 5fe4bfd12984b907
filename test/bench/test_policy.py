from __future__ import annotations

import json
from pathlib import Path

import pytest

from ros_vla_accel.bench.policy import main


@pytest.mark.slow
def test_time_and_memory_of_both_sizes_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    assert main(["--quick", "--count", "1", "--threads", "1", "--json", str(path)]) == 0
    content = json.loads(path.read_text())
    large = [row for row in content["rows"] if row["size"] == "large"]
    assert all(row["random_weights"] for row in large)
    assert 80 < large[0]["parameters_m"] < 120
    summary = content["summary"]
    assert summary["large_weights_mb"] > 5 * summary["shipped_weights_mb"]
    for size in ("shipped", "large"):
        assert summary[f"{size}_ms_1_threads"] > 0
        assert summary[f"{size}_peak_mb"] > summary[f"{size}_weights_mb"]
