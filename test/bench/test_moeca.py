from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ros_vla_accel.bench.moeca_contenders import contenders
from ros_vla_accel.bench.moeca_report import draw_front, front, front_behind
from ros_vla_accel.policies.objectives import STEP_RANGES


def row(family: str, ms: float, error: float, steps: int = 10) -> dict[str, Any]:
    return {
        "objective": "flow",
        "reference_steps": steps,
        "threads": 1,
        "family": family,
        "ms": ms,
        "error_mean": error,
    }


def test_the_front_is_what_nobody_beats_in_time_and_error() -> None:
    rows = [row("a", 1, 0.9), row("b", 2, 0.5), row("c", 3, 0.6), row("d", 4, 0.1)]
    assert [r["family"] for r in front(rows)] == ["a", "b", "d"]


def test_a_family_is_ahead_where_moeca_needs_longer_for_the_same_error() -> None:
    rows = [
        row("none", 100, 0.0),
        row("moeca", 50, 0.1),
        row("fora", 49, 0.1),  # Two per cent: level.
        row("tokens", 60, 0.2),  # Slower and worse than MoECa.
        row("taylor 1", 50, 0.05),  # Only the plain head errs as little.
        row("first block", 120, 0.0),  # Slower than the plain head: nobody wants it.
    ]
    behind, ratios = front_behind(rows)
    assert behind == ["taylor 1"]
    assert ratios == pytest.approx({"fora": 50 / 49, "tokens": 50 / 60, "taylor 1": 2.0})


def test_fronts_of_different_samplers_are_not_mixed() -> None:
    rows = [row("none", 9, 0.0), row("moeca", 5, 0.1)]
    rows += [row("none", 90, 0.0, steps=50), row("fora", 7, 0.2, steps=50)]
    assert front_behind(rows)[0] == ["fora"]


@pytest.mark.parametrize("objective", ["flow", "ddpm"])
@pytest.mark.parametrize("steps", [10, 50])
def test_every_method_is_compared_at_three_settings_or_more(objective: str, steps: int) -> None:
    entries = contenders(objective, steps)
    assert entries[0].family == "none"
    families = [entry.family for entry in entries[1:]]
    for family in ("fewer steps", "fora", "tokens", "taylor 1", "taylor 2", "first block"):
        assert families.count(family) >= 3
    assert families.count("moeca") > 8
    low, high = STEP_RANGES[objective]
    assert all(low <= entry.steps <= high for entry in entries)
    labels = [(entry.family, entry.setting) for entry in entries]
    assert len(set(labels)) == len(labels)


def test_the_front_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [row("none", 100, 0.0), row("moeca", 50, 0.1), row("fora", 40, 0.2)]
    draw_front(rows, str(tmp_path / "front.png"))
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_only_the_products_that_are_run_are_counted() -> None:
    pytest.importorskip("mujoco")
    from ros_vla_accel.bench.moeca import FlopCounter

    layers = torch.nn.ModuleList([torch.nn.Linear(8, 4), torch.nn.Linear(8, 4)])
    counter = FlopCounter(layers)
    layers[0](torch.zeros(3, 8))
    assert counter.stop() == 2 * 3 * 8 * 4
    layers[0](torch.zeros(3, 8))
    assert counter.stop() == 2 * 3 * 8 * 4


@pytest.mark.slow
def test_the_shipped_head_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("metaworld")
    from ros_vla_accel.bench.moeca import main

    path = tmp_path / "moeca.json"
    arguments = ["--quick", "--steps", "10", "--threads", "1", "--turns", "2", "--episodes", "1"]
    assert main([*arguments, "--json", str(path)]) == 0
    content = json.loads(path.read_text())
    assert content["summary"]["exact_at_budget_1"] is True
    assert isinstance(content["summary"]["front_behind"], list)
    rows = {(r["family"], r["setting"]): r for r in content["rows"]}
    assert rows["none", "10 steps"]["error_mean"] == 0
    reuse = rows["moeca", "every 3, budget 0"]
    assert 0.3 < reuse["branch_reuse"] < 0.7
    assert reuse["gflop"] < 0.7 * rows["none", "10 steps"]["gflop"]
