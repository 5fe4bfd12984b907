"""Exported graphs compute what torch computes, and say what they hold."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ros_vla_accel.contracts import InferenceRequest
from ros_vla_accel.engines.calibration import load_observations, record, save_observations
from ros_vla_accel.engines.check import check
from ros_vla_accel.engines.errors import EngineError
from ros_vla_accel.engines.export import ExportConfig, export, trace
from ros_vla_accel.engines.manifest import EngineManifest
from ros_vla_accel.engines.stages import GRAPHS, MIXTURES, traceable_copy
from ros_vla_accel.engines.tensorrt_build import Target, build_all
from ros_vla_accel.experiments import export as command
from ros_vla_accel.policies.reference_policy import ReferencePolicy

BOUNDS = {"fp32": 1e-5, "w8a8": 0.03, "w4a16": 0.15, "w4a8": 0.15, "fp8": 0.06}
"""Largest root mean square error of a graph, over the largest magnitude of its output."""


@pytest.mark.parametrize("form", MIXTURES)
def test_traceable_mixtures_compute_what_the_model_does(
    form: str, policy: ReferencePolicy
) -> None:
    mixture = policy.model.head.blocks[0].moe
    rows = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        traced = traceable_copy(policy.model, form).head.blocks[0].moe(rows)
        assert torch.allclose(traced, mixture(rows), atol=1e-5)


@pytest.mark.parametrize("precision", BOUNDS)
def test_graphs_of_every_precision_follow_torch(
    precision: str,
    policy: ReferencePolicy,
    exported_dir: Path,
    requests: list[InferenceRequest],
    request: pytest.FixtureRequest,
) -> None:
    if precision == "w8a8":
        request.getfixturevalue("exact_int8")
    found = check(policy, exported_dir, requests, [precision])
    assert [d.problem for d in found if d.problem] == []
    assert {(d.graph, d.shapes) for d in found} == {
        *((graph, shapes) for graph in GRAPHS for shapes in ("dynamic", "1")),
        ("actions", "dynamic"),
    }
    for d in found:
        assert d.rms <= BOUNDS[precision] * d.scale, d


def test_narrow_weights_are_those_of_the_layers_that_torch_packs(
    exported_dir: Path,
) -> None:
    manifest = EngineManifest.load(exported_dir)
    kinds = onnx.TensorProto
    for precision, kind in (
        ("w4a16", kinds.INT4),
        ("w8a8", kinds.INT8),
        ("fp8", kinds.FLOAT8E4M3FN),
    ):
        artifact = manifest.artifact(precision, "step")
        assert "head.blocks.1.moe.down" in artifact.quantized
        assert not [name for name in artifact.quantized if name.endswith((".router", "embed"))]
        graph = onnx.load(exported_dir / artifact.file).graph
        stored = [t for t in graph.initializer if t.data_type == kind and len(t.dims) == 2]
        assert len(stored) == len(artifact.quantized) == 14
    assert manifest.artifact("w4a16", "vision") == manifest.artifact("fp32", "vision")
    assert manifest.artifact("w4a8", "step") == manifest.artifact("w4a16", "step")


def test_graphs_are_of_opset_21_with_named_dynamic_sizes_or_fixed_ones(
    exported_dir: Path,
) -> None:
    manifest = EngineManifest.load(exported_dir)
    dynamic = manifest.artifact("fp32", "condition")
    assert dynamic.inputs["context"] == ["float", ["batch", 24, 64]]
    assert dynamic.outputs["modulation_0"] == ["float", ["batch", "steps", 9 * 64]]
    assert manifest.artifact("fp32", "vision", "1").inputs["images"][1] == [1, 2, 3, 32, 32]
    model = onnx.load(exported_dir / dynamic.file)
    assert {o.domain: o.version for o in model.opset_import}[""] == 21


def test_scales_of_the_head_have_a_row_per_denoising_step(
    policy: ReferencePolicy, exported_dir: Path, requests: list[InferenceRequest]
) -> None:
    own = copy.copy(policy)
    own.model = traceable_copy(policy.model, "dense")
    largest = record(own, [r.observation for r in requests]).largest
    assert all(table.min() > 0 for table in largest.values())
    tables = {name: table for name, table in largest.items() if table.ndim}
    assert len(tables) == 14
    assert all(table.shape == (policy.steps,) for table in tables.values())
    assert any(table.max() > 1.02 * table.min() for table in tables.values())
    file = EngineManifest.load(exported_dir).artifact("w8a8", "step").file
    constants = {
        tuple(np.round(onnx.numpy_helper.to_array(t), 6))
        for t in onnx.load(exported_dir / file).graph.initializer
        if list(t.dims) == [policy.steps] and t.data_type == onnx.TensorProto.FLOAT
    }
    for table in tables.values():
        assert tuple(np.round(table.numpy(), 6)) in constants


def test_w8a8_without_calibration_is_refused(policy: ReferencePolicy, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="needs calibration data: give --calibration"):
        export(policy, tmp_path, ExportConfig(("fp32", "w8a8")))
    assert not list(tmp_path.iterdir())
    with pytest.raises(EngineError, match="fp8 needs base fp32 or fp16"):
        ExportConfig(("fp8",), base="bf16")


def test_calibration_files_come_back_and_bad_ones_are_named(
    policy: ReferencePolicy, requests: list[InferenceRequest], tmp_path: Path
) -> None:
    path = tmp_path / "seen.npz"
    save_observations(path, [r.observation for r in requests])
    again = load_observations(path, policy.spec)
    assert np.array_equal(again[1].images["wrist"], requests[1].observation.images["wrist"])
    assert again[2].instruction == "open the drawer"
    with pytest.raises(EngineError, match=r"nowhere.npz' is missing"):
        load_observations(tmp_path / "nowhere.npz", policy.spec)
    np.savez(path, state=np.zeros((1, 9)))
    with pytest.raises(EngineError, match="image_front"):
        load_observations(path, policy.spec)


class _Unsupported(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigh(images[:, 0, 0].float())[1].repeat(1, 1, 2)


def test_an_operator_without_an_onnx_form_is_named(policy: ReferencePolicy) -> None:
    model = traceable_copy(policy.model, "dense")
    model.vision = _Unsupported()
    with pytest.raises(EngineError, match=r"graph 'vision' cannot be exported: .*eigh"):
        trace("vision", model)


def test_only_the_float32_reference_policy_is_exported(checkpoint: Path, tmp_path: Path) -> None:
    packed = ReferencePolicy(checkpoint, quantize="w4ax")
    with pytest.raises(EngineError, match="`quantize` left out"):
        export(packed, tmp_path, ExportConfig(("fp32",)))
    with pytest.raises(EngineError, match="float32 on the CPU"):
        export(ReferencePolicy(checkpoint, dtype="bfloat16"), tmp_path, ExportConfig(("fp32",)))
    with pytest.raises(EngineError, match="block size 32"):
        ExportConfig(("w4a16",), block_size=32)


def test_the_command_exports_one_stage_checks_it_and_says_so(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "args.yaml").write_text(f"checkpoint: {checkpoint}\n")
    arguments = ["--policy-args", str(tmp_path / "args.yaml"), "--out", str(tmp_path / "out")]
    wanted = ["--stage", "backbone", "--precision", "fp32", "bf16", "--check"]
    written = ["--json", str(tmp_path / "export.json")]
    # ONNX Runtime has no kernels for bfloat16 on a CPU, so the check is not complete.
    assert command.main([*arguments, *wanted, *written]) == 1
    rows = json.loads((tmp_path / "export.json").read_text())["rows"]
    problems = {r["precision"]: r["problem"] for r in rows if "problem" in r}
    assert problems["fp32"] == ""
    assert "cannot run 'backbone.bf16.onnx' on this CPU" in problems["bf16"]
    assert "not run" in capsys.readouterr().out
    assert command.main([*arguments, "--precision", "w8a8"]) == 1
    assert "--record-calibration" in capsys.readouterr().err


def test_w4a8_alone_brings_its_files(policy: ReferencePolicy, tmp_path: Path) -> None:
    manifest = export(policy, tmp_path, ExportConfig(("w4a8",), stages=("backbone",)))
    assert list(manifest.graphs) == ["w4a8"]
    assert manifest.artifact("w4a8", "backbone").file == "backbone.w4a16.onnx"
    with pytest.raises(EngineError, match="'backbone' was not exported in w4a16"):
        manifest.artifact("w4a16", "backbone")


def test_int8_is_dense_where_nobody_says_otherwise() -> None:
    config = ExportConfig(("fp32", "w8a8"))
    assert [config.form(p) for p in config.precisions] == ["routed", "dense"]
    assert ExportConfig(("w8a8",), mixture="routed").form("w8a8") == "routed"


@pytest.mark.slow
def test_routed_mixtures_are_exported_and_tensorrt_refuses_them(
    policy: ReferencePolicy, requests: list[InferenceRequest], tmp_path: Path
) -> None:
    config = ExportConfig(("fp32", "w8a8", "w4a8"), stages=("head",), mixture="routed")
    manifest = export(policy, tmp_path, config, [r.observation for r in requests])
    assert set(manifest.mixture.values()) == {"routed"}
    # Four experts and a shared one, of two layers each, in place of two products.
    assert len(manifest.artifact("w8a8", "step").quantized) == 2 * (5 + 2 * 5)
    found = check(policy, tmp_path, requests)
    assert {(d.precision, d.graph) for d in found} == {
        (precision, graph) for precision in config.precisions for graph in ("condition", "step")
    }
    for d in found:
        assert not d.problem
        assert d.rms <= BOUNDS[d.precision] * d.scale, d
    with pytest.raises(EngineError, match="export with --mixture dense"):
        build_all(tmp_path, manifest, Target("tensorrt_rtx", "1", "8.6"), ["fp32"])
