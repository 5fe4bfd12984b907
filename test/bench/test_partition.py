"""``bench partition`` on one scene per cell."""

import json

import pytest

from ros_vla_accel.bench import main, partition
from ros_vla_accel.experiments.offloading import Episode

KEYS = {
    "speedup_over_entropy_noise",
    "speedup_over_edge_only",
    "success_minus_cloud_only",
    "replans_saved",
    "trigger_overhead",
}


def test_result_compares_the_strategies_over_the_same_scenes(tmp_path, monkeypatch):
    monkeypatch.setattr(partition, "ROUND_TRIPS_MS", (20,))
    monkeypatch.setattr(partition, "QUICK", ("noise",))
    path, picture = tmp_path / "p.json", tmp_path / "p.png"
    options = ["--quick", "--tasks", "drawer-open", "--scenes", "1", "--workers", "1"]
    options += ["--json", str(path), "--plot", str(picture)]
    assert main(["partition", *options]) == 0
    content = json.loads(path.read_text())
    summary = content["summary"]
    assert set(summary) >= KEYS | {f"{key}_low" for key in KEYS - {"trigger_overhead"}}
    rows = {row["strategy"]: row for row in content["rows"]}
    assert set(rows) == {*partition.EVERYWHERE, *partition.SHORT_ONLY}
    assert {tuple(row["seeds"]) for row in rows.values()} == {(partition.FIRST_SEED,)}
    edge, cloud, rapid = (rows[name] for name in ("edge only", "cloud only", "RAPID"))
    assert edge["latency_ms_mean"] == pytest.approx(782, abs=1)
    assert edge["cloud_calls"] == edge["bytes_sent"] == 0
    assert cloud["edge_s"] == 0
    assert cloud["bytes_sent"] > 1000 * cloud["cloud_calls"]
    assert 90 < rapid["latency_ms_mean"] < rows["uncertainty"]["latency_ms_mean"]
    assert rapid["success_rate"] == 1.0
    speedup = rows["uncertainty"]["latency_ms_mean"] / rapid["latency_ms_mean"]
    assert summary["speedup_over_entropy_noise"] == pytest.approx(speedup)
    assert 0 < summary["trigger_overhead"] < 0.1
    assert picture.read_bytes().startswith(b"\x89PNG")


def episode(success: bool, latency_s: float, replans: int) -> Episode:
    times = [latency_s] * replans
    return Episode(0, success, 60, times, times, replans=replans)


def test_summary_counts_saved_replans_where_both_succeed_and_pairs_successes():
    found = {
        ("noise", 20, name): [episode(True, latency, replans)] * 3 + [episode(last, latency, 50)]
        for name, latency, replans, last in (
            ("edge only", 0.782, 5, True),
            ("cloud only", 0.12, 8, True),
            ("uncertainty", 0.25, 8, True),
            ("RAPID", 0.125, 10, True),
            ("RAPID, reuse", 0.125, 6, False),
        )
    }
    summary = partition.summarize(found)
    assert summary["speedup_over_entropy_noise"] == pytest.approx(2.0)
    assert summary["speedup_over_edge_only"] == pytest.approx(0.782 / 0.125)
    assert summary["replans_saved"] == pytest.approx(0.4)
    assert summary["success_minus_cloud_only"] == 0.0
    assert summary["reuse_success_minus_rapid"] == pytest.approx(-0.25)
    assert summary["age_over_best_other"] == pytest.approx(0.125 / 0.12)


def test_every_cell_has_scenes_of_its_own():
    cells = partition.cells_of(("clean", "noise"), (20, 80), 7)
    seeds = [seed for cell in cells for seed in cell.seeds]
    assert len(set(seeds)) == len(seeds) == 28
    assert [cell.setting.perturbation for cell in cells] == ["none", "none", "noise", "noise"]
