"""``bench quantization`` on one task, with a decoder of a moment in place of 7 B."""

import json

import pytest

from ros_vla_accel.bench import memory, quantization
from ros_vla_accel.bench.precision_arms import bf16, w8a8
from ros_vla_accel.contracts import InferenceRequest
from ros_vla_accel.policies import reference
from ros_vla_accel.precision import Calibration, PrecisionConfig

LAST = "dynamic, no look-ahead"


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    path = tmp_path_factory.mktemp("calibration") / "c.yaml"
    spec = reference().spec
    precision = PrecisionConfig(mu95=0.013, nu95=0.01, table=((0.5, 4),))
    Calibration(spec.name, spec.identity, "fk", precision).save(path)
    return path


@pytest.fixture(scope="module")
def request_of_a_scene() -> InferenceRequest:
    (request,) = quantization.starts_of(["drawer-open-v3"])
    return request


@pytest.mark.parametrize(("make", "error"), [(bf16, 0.02), (w8a8, 0.05)])
def test_static_arms_compute_the_policy_s_actions(make, error, request_of_a_scene, request):
    if make is bf16:
        request.getfixturevalue("prepacked_bf16")
    exact = reference().infer([request_of_a_scene])[0].actions
    found = make(threads=1).infer([request_of_a_scene])[0].actions
    assert 0 < abs(found - exact)[:, :3].max() < error


@pytest.mark.usefixtures("prepacked_bf16")
def test_result_compares_arms_over_the_same_scenes(tmp_path, monkeypatch, calibration):
    for name, value in {"WIDTH": 128, "HIDDEN": 256, "HEADS": 4, "VOCABULARY": 512}.items():
        monkeypatch.setattr(memory, name, value)
    arms = quantization.arms_of
    monkeypatch.setattr(
        quantization,
        "arms_of",
        lambda path: {k: v for k, v in arms(path).items() if k not in ("w8a8", "w4a2", LAST)},
    )
    path, again = tmp_path / "q.json", tmp_path / "again.json"
    options = ["--quick", "--tasks", "drawer-open", "--workers", "1", "--repeats", "4"]
    options += ["--calibration", str(calibration)]
    assert quantization.main([*options, "--episodes", "1", "--json", str(path)]) == 0
    content = json.loads(path.read_text())
    rows = {row["arm"]: row for row in content["rows"] if "condition" in row}
    assert rows["bf16"]["success_rate"] == rows["dynamic"]["success_rate"] == 1.0
    assert rows["w4a4"]["share_by_bits"] == {"4": 1.0}
    assert {"4", "16"} == set(rows["dynamic"]["share_by_bits"])
    seeds = {tuple(task["seeds"]) for row in rows.values() for task in row["tasks"]}
    assert seeds == {(quantization.FIRST_SEED,)}
    summary = content["summary"]
    assert summary["success_ratio"] == 1.0
    assert summary["steps_at_16_bits"] == rows["dynamic"]["share_by_bits"]["16"]
    assert 0 < summary["switch_p50_us"] < summary["switch_p99_us"]
    assert summary["speedup_7b"] > 0
    # Times again, closed loops as they were.
    options += ["--reuse", str(path)]
    assert quantization.main([*options, "--episodes", "1", "--json", str(again)]) == 0
    repeated = json.loads(again.read_text())
    assert repeated["summary"]["steps_at_16_bits"] == summary["steps_at_16_bits"]
    with pytest.raises(ValueError, match="leave out --reuse"):
        quantization.main([*options, "--episodes", "2"])
