"""The benchmark of replay measures what it says, in the form that all benchmarks have."""

import json

import pytest

from ros_vla_accel.bench.replay import main, write_bag
from ros_vla_accel.replay.pipeline import replay


def test_its_recordings_move_and_are_touched_and_have_nothing_odd(tmp_path):
    run = replay(write_bag(tmp_path / "bag", seconds=12, image=(12, 16)))
    assert run.quality.as_dict() == {}
    assert len(run.bits) > 1
    assert len(run.preemptions_s)


@pytest.mark.slow
def test_its_result_has_the_keys_that_others_read(tmp_path):
    pytest.importorskip("plotly")
    path = tmp_path / "replay.json"
    assert main(["--quick", "--megabytes", "5", "--json", str(path)]) == 0
    summary = json.loads(path.read_text())["summary"]
    assert set(summary) >= {"real_time_factor", "peak_memory_mb", "report_mb", "report_s"}
    assert all(value > 0 for value in summary.values())
