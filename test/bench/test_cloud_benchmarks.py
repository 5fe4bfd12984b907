"""The benchmarks of the cloud worker measure real processes, and name what they could not."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest

from ros_vla_accel.bench import load, main, stack, transport
from ros_vla_accel.bench.peers import lerobot_version, openpi_version


def test_transport_measures_every_way_in_each_run(tmp_path, capsys) -> None:
    path = tmp_path / "transport.json"
    assert main(["transport", "--questions", "5", "--repeats", "2", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    ways = {"floor", "ours", "curve"} | ({"openpi"} if openpi_version() else set())
    ways |= {"lerobot"} if lerobot_version() else set()
    found = {(row["run"], row["transport"], row["size"]) for row in result["rows"]}
    assert found == {(k, way, size) for k in (0, 1) for way in ways for size in ("224", "480")}
    keys = ["over_floor_224", "over_floor_480", "curve_over_plain_480", "best_peer_over_ours_480"]
    assert list(result["summary"]) == keys
    assert all(result["summary"][key] > 0 for key in keys[:3])
    assert (result["summary"][keys[3]] is None) == (ways == {"floor", "ours", "curve"})
    assert "openpi_client: " in capsys.readouterr().out


def test_ratios_are_of_medians_of_the_same_run() -> None:
    rows = [
        {"run": run, "transport": way, "size": size, "p50_ms": p50 * (1 + run)}
        for run in (0, 1)
        for size in ("224", "480")
        for way, p50 in (
            ("floor", 1.0),
            ("ours", 1.25),
            ("curve", 2.5),
            ("openpi", 5.0),
            ("lerobot", 9.0),
        )
    ]
    summary = transport._result(rows, 1, 2).summary
    assert list(summary.values()) == [1.25, 1.25, 2.0, 4.0]


def test_load_answers_or_refuses_everyone() -> None:
    result = load.run(seconds=1.0, repeats=1, robots=(2, 48))
    assert result.summary["unanswered"] == 0
    assert result.summary["batching_gain"] > 1
    assert math.isnan(result.summary["p99_ms_32_robots"])
    for row in result.rows:
        assert row["asked"] == row["robots"] * 5
        ended = row["served_per_s"] + row["asked"] * sum(
            row[f"{name}_share"] for name in ("late", "expired", "superseded", "busy", "other")
        )
        assert ended == pytest.approx(row["asked"]), "one end for each request"
        assert row["other_share"] == 0


def state(time_ms: int, request_id: int, stamp_ms: int, source: str, code: int = 1):
    stamps = [SimpleNamespace(sec=0, nanosec=ms * 1_000_000) for ms in (time_ms, stamp_ms)]
    header = SimpleNamespace(stamp=stamps[0])
    return SimpleNamespace(
        header=header, chunk_stamp=stamps[1], request_id=request_id, source=source, state=code
    )


def test_only_the_first_played_row_of_a_chunk_is_dated() -> None:
    states = [
        state(100, 1, 0, "edge", code=0),
        state(150, 1, 0, "edge"),
        state(200, 1, 0, "edge"),
        state(250, 2, 170, "cloud"),
        state(300, 2, 170, "cloud", code=2),
        state(350, 3, 260, "edge"),
    ]
    assert stack.first_rows_ms(states, "edge") == [150.0, 90.0]
    assert stack.first_rows_ms(states, "cloud") == [80.0]


@pytest.mark.slow
def test_the_running_stack_is_measured_on_both_routes() -> None:
    rows = stack.stamp_to_row(1, ("drawer-open",))
    assert [row["route"] for row in rows] == ["edge", "cloud"]
    for row in rows:
        assert row["chunks"] >= 3
        assert 0 < row["p50_ms"] <= row["p99_ms"] < 2000
