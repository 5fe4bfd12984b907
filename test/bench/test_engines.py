"""``bench engines`` on the shipped policy: exports it, so that it takes a minute or two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.slow
def test_engines_are_timed_in_turns_with_torch_and_weighed(tmp_path: Path) -> None:
    from ros_vla_accel.bench.engines import HELD, TIMED, main

    path = tmp_path / "engines.json"
    assert main(["--quick", "--count", "2", "--json", str(path)]) == 0
    content = json.loads(path.read_text())
    timed = {(row["arm"], row["run"]) for row in content["rows"] if "arm" in row}
    assert timed == {(arm, run) for arm in TIMED for run in (2, 3)}
    for row in content["rows"]:
        if "arm" in row:
            parts = row["vision_ms"] + row["backbone_ms"] + row["head_ms"]
            assert 0 < parts <= row["total_ms"]
    held = {row["memory"]: row for row in content["rows"] if "memory" in row}
    assert set(held) == set(HELD)
    # A file for both widths, but each engine holds weights of its own.
    both, one = held["ort w4a16 and w4a8"], held["ort w4a16"]
    assert one["held_mb"] < both["held_mb"]
    assert both["widths"] == [8, 16]
    assert content["summary"]["speedup_fp32"] > 0
