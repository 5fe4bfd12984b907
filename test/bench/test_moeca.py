from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ros_vla_accel.bench.moeca_contenders import EDGES, SAMPLERS, contenders
from ros_vla_accel.bench.moeca_report import draw_front, draw_parts, front, front_behind
from ros_vla_accel.policies.objectives import STEP_RANGES


def row(family: str, ms: float, error: float, sampler: str = "flow_10") -> dict[str, Any]:
    return {
        "sampler": sampler,
        "batch": "one",
        "threads": 1,
        "family": family,
        "setting": f"{ms} ms",
        "ms": ms,
        "speedup": 100 / ms,
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
    rows += [row("none", 90, 0.0, "flow_50"), row("fora", 7, 0.2, "flow_50")]
    assert front_behind(rows)[0] == ["fora"]


@pytest.mark.parametrize("brief", [False, True])
@pytest.mark.parametrize("key", SAMPLERS)
def test_every_method_is_compared_at_three_settings_or_more(key: str, brief: bool) -> None:
    sampler = SAMPLERS[key]
    entries = contenders(sampler, brief)
    assert (entries[0].family, entries[0].steps) == ("none", sampler.steps)
    families = [entry.family for entry in entries[1:]]
    better = "midpoint" if sampler.objective == "flow" else "dpm++ 2m"
    wanted = ["fewer steps", better, "fora", "tokens", "taylor 1", "taylor 2", "first block"]
    for family in wanted + ([] if brief else ["warm start", "moeca, lazy + fewer steps"]):
        assert families.count(family) >= 3, family
    assert families.count("moeca") >= 6
    assert families.count("moeca, lazy") >= 6
    low, high = STEP_RANGES[sampler.objective]
    assert all(low <= entry.steps <= high for entry in entries)
    labels = [(entry.family, entry.setting) for entry in entries]
    assert len(set(labels)) == len(labels)


def test_two_names_of_the_same_code_are_one_computation() -> None:
    entries = contenders(SAMPLERS["flow_10"])
    found = {(entry.family, entry.setting): entry.computation for entry in entries}
    for edges in EDGES:
        lazy = "moeca, lazy", f"every 5, budget 0{edges}"
        assert found[lazy] == found["taylor 2", f"every 5{edges}"]
        first = "moeca, lazy", f"every 5, budget 0, order 1{edges}"
        assert found[first] == found["taylor 1", f"every 5{edges}"]
        held = "moeca, lazy", f"every 5, budget 0, held{edges}"
        assert found[held] == found["fora", f"every 5{edges}"]
    # Nothing else is: three of each of three intervals have a twin with any edges, but for every
    # third step, where the last is full anyway.
    assert len(set(found.values())) == len(found) - 3 * (3 * 3 - 1)


def test_the_front_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [row("none", 100, 0.0), row("moeca", 50, 0.1), row("fora", 40, 0.2)]
    draw_front(rows, str(tmp_path / "front.png"))
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    bar = {"sampler": "flow_10", "label": "none, 10 steps", "parts_ms": {"experts": 2.0}}
    draw_parts([*rows, bar], str(tmp_path / "parts.png"))
    assert (tmp_path / "parts.png").read_bytes().startswith(b"\x89PNG")


def test_only_the_products_that_are_run_are_counted() -> None:
    pytest.importorskip("mujoco")
    from ros_vla_accel.bench.moeca_measure import FlopCounter

    layers = torch.nn.ModuleList([torch.nn.Linear(8, 4), torch.nn.Linear(8, 4)])
    counter = FlopCounter(layers)
    layers[0](torch.zeros(3, 8))
    assert counter.stop() == 2 * 3 * 8 * 4
    layers[0](torch.zeros(3, 8))
    assert counter.stop() == 2 * 3 * 8 * 4


def test_the_fastest_is_the_fastest_whose_success_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("metaworld")
    from ros_vla_accel.bench.moeca_success import ClosedLoops, fastest

    entries = [c for c in contenders(SAMPLERS["flow_10"]) if c.family == "moeca, lazy"]
    entries = [contenders(SAMPLERS["flow_10"])[0], *entries[:3]]
    settings = [c.setting for c in entries]
    rows = [row("none", 100, 0.0), *(row("moeca, lazy", ms, 1 / ms) for ms in (30, 20, 10))]
    for one, contender in zip(rows, entries, strict=True):
        one["setting"] = contender.setting
    plain = [1] * 396 + [0] * 4
    worse = [1] * 380 + [0] * 20  # Four points.
    known = {
        ("flow_10", "none", settings[0]): plain,
        ("flow_10", "moeca, lazy", settings[3]): worse,
    }
    known["flow_10", "moeca, lazy", settings[2]] = plain[::-1]  # Other episodes, as many of them.
    loops = ClosedLoops("reference", ["drawer-open", "door-open"], 400, 1, known)
    found = list(loops.run("flow_10", entries, rows))
    assert [r["setting"] for r in found] == [settings[i] for i in (0, 3, 2)]
    assert [r["held"] for r in found] == [True, False, True]
    assert found[1]["difference"] == pytest.approx(-0.04)
    summary = fastest(found)
    assert np.isnan(summary.pop("speedup_branches_flow_10"))
    assert summary == {
        "speedup_flow_10": 5.0,
        "fastest_flow_10": f"moeca, lazy, {settings[2]}",
        "fastest_speedup_flow_10": 5.0,
    }


def test_too_few_pairs_show_nothing() -> None:
    pytest.importorskip("metaworld")
    from ros_vla_accel.bench.moeca_success import ClosedLoops, fastest

    entries = contenders(SAMPLERS["flow_10"])[:2]
    rows = [row("none", 100, 0.0), row("fewer steps", 10, 0.1)]
    rows[1]["setting"] = entries[1].setting
    known = {("flow_10", c.family, c.setting): [1] * 40 for c in entries}
    loops = ClosedLoops("reference", ["drawer-open"], 40, 1, known)
    found = list(loops.run("flow_10", entries, rows))
    assert not found[1]["held"]
    assert np.isnan(fastest(found)["speedup_flow_10"])


def test_batches_are_of_different_robots_or_of_one_with_many_noises() -> None:
    pytest.importorskip("metaworld")
    from ros_vla_accel.bench.moeca_cases import Case, batched
    from ros_vla_accel.policies.reference_policy import ReferencePolicy

    spec = ReferencePolicy().spec
    single = [
        Case(torch.full((1, 2, 3), float(i)), torch.randn(1, 1, 16, 4), i % 4 > 0)
        for i in range(12)
    ]
    assert batched(single, "one", spec) == single
    fleet = batched(single, "fleet", spec)
    assert [case.context[:, 0, 0].tolist() for case in fleet] == [
        [0, 4, 8, 1, 5, 9, 2, 6],
        [10, 3, 7, 11, 0, 4, 8, 1],
    ]
    assert fleet[0].noise.shape == (8, 1, 16, 4)
    assert fleet[0].chunks == 8
    samples = batched(single, "samples", spec)
    assert [case.context[0, 0, 0].item() for case in samples] == [0, 4, 8]
    assert samples[0].noise.shape == (1, 16, 16, 4)
    assert not torch.equal(samples[0].noise[:, 0], samples[0].noise[:, 1])


def test_the_parts_of_a_step_add_up_and_nothing_stays_patched() -> None:
    pytest.importorskip("metaworld")
    from ros_vla_accel.bench.moeca_cases import Case
    from ros_vla_accel.bench.moeca_measure import Bench
    from ros_vla_accel.bench.moeca_parts import PLACES, parts
    from ros_vla_accel.policies.reference_policy import ReferencePolicy

    before = [vars(owner)[name] for owner, name, _ in PLACES]
    bench = Bench(ReferencePolicy(), time.perf_counter)
    case = Case(torch.zeros(1, 20, 192), torch.randn(1, 1, 16, 4))
    entries = [
        c
        for c in contenders(SAMPLERS["flow_10"])
        if c.family == "none"
        or (c.family == "moeca" and c.setting in ("every 3, budget 0.25", "every 3, budget 0"))
    ]
    with torch.inference_mode():
        start = time.perf_counter()
        found = parts(bench, entries, [case], turns=1)
        elapsed_ms = 1e3 * (time.perf_counter() - start)
    assert [vars(owner)[name] for owner, name, _ in PLACES] == before
    plain, cached, some = (row["parts_ms"] for row in found)
    assert not {"scoring", "forecast"} & set(plain)
    assert {"attention", "experts", "router", "rest"} <= set(plain)
    assert cached["forecast"] > 0
    assert some["scoring"] > 0
    assert 10 * sum(sum(p.values()) for p in (plain, cached, some)) < elapsed_ms


@pytest.mark.slow
def test_the_shipped_head_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("ros_vla_accel.sim.env")  # Chooses how MuJoCo renders, which it imports.
    from ros_vla_accel.bench.moeca import main

    path = tmp_path / "moeca.json"
    # All contenders: the brief list of --quick has no warm start.
    arguments = ["--samplers", "flow_10", "--batches", "one", "--threads", "1"]
    arguments += ["--turns", "2", "--episodes", "1", "--pairs", "8", "--workers", "1"]
    assert main([*arguments, "--json", str(path)]) == 0
    content = json.loads(path.read_text())
    assert content["summary"]["exact_at_budget_1"] is True
    assert isinstance(content["summary"]["front_behind"], list)
    rows = {(r["family"], r["setting"]): r for r in content["rows"] if "error_mean" in r}
    assert rows["none", "10 steps"]["error_mean"] == 0
    reuse = rows["moeca", "every 3, budget 0"]
    assert 0.3 < reuse["branch_reuse"] < 0.7
    loops = [r for r in content["rows"] if "closed_loop" in r]
    assert (loops[0]["family"], len(loops[0]["outcomes"])) == ("none", 8)
    assert {r["family"] for r in loops} > {"moeca", "moeca, lazy", "warm start"}
    assert not any(r["held"] for r in loops)  # Eight pairs show nothing.
    assert content["summary"]["speedup_flow_10"] is None
    assert reuse["gflop"] < 0.7 * rows["none", "10 steps"]["gflop"]
