"""The forms of ``bench kernels`` and ``bench memory``, on shapes of a moment."""

import json

import pytest

from ros_vla_accel.bench import kernels, memory


@pytest.mark.usefixtures("prepacked_bf16")
def test_kernels_reports_the_smallest_ratio_over_the_shapes(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "SHAPES", ((64, 64), (128, 96)))
    path = tmp_path / "kernels.json"
    assert kernels.main(["--repeats", "3", "--cpu-time", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    for rows in (1, 8, 32, 128, 512):
        ratios = [row["w4a8_over_bf16"] for row in found["rows"] if row["rows"] == rows]
        assert len(ratios) == 2
        assert found["summary"][f"w4a8_over_bf16_m{rows}"] == min(ratios)


@pytest.mark.usefixtures("prepacked_bf16")
def test_memory_compares_peaks_of_the_same_decoder(tmp_path, monkeypatch):
    for name, value in {"WIDTH": 128, "HIDDEN": 256, "HEADS": 4, "VOCABULARY": 512}.items():
        monkeypatch.setattr(memory, name, value)
    monkeypatch.setattr(memory, "peak", lambda layers, group_size: memory_of_a_quarter())
    path = tmp_path / "memory.json"
    assert memory.main(["--quick", "--json", str(path)]) == 0
    summary = json.loads(path.read_text())["summary"]
    assert summary["memory_ratio_7b"] == 0.25
    assert summary["w4a8_total_speedup"] > 0


def memory_of_a_quarter():
    return {"peak_bytes": 1, "bf16_peak_bytes": 4}
