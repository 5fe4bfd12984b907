"""Real TensorRT engines, built without a GPU; running them needs one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ros_vla_accel.contracts import InferenceRequest
from ros_vla_accel.engines import EngineError, capability, exported
from ros_vla_accel.engines import tensorrt_build as trt_build
from ros_vla_accel.engines.export import ExportConfig, export
from ros_vla_accel.engines.manifest import EngineManifest
from ros_vla_accel.engines.report import engines
from ros_vla_accel.experiments import export as command
from ros_vla_accel.policies.reference_policy import ReferencePolicy

pytest.importorskip("tensorrt_rtx")
if trt_build.library().__name__ != "tensorrt_rtx":
    pytest.skip("these build for other GPUs, with tensorrt_rtx", allow_module_level=True)

PRECISIONS = ("fp32", "w8a8", "w4a16")


@pytest.fixture(scope="module")
def built_dir(exported_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines of every precision for an RTX 30, made by the command."""
    folder = tmp_path_factory.mktemp("tensorrt") / "engines"
    shutil.copytree(exported_dir, folder)
    assert command.main([*ARGUMENTS, "--out", str(folder)]) == 0
    return folder


ARGUMENTS = [
    *("--engine", "tensorrt", "--compute-capability", "8.6", "--build-only"),
    *("--precision", *PRECISIONS),
]


def test_engines_are_built_for_all_graphs_and_named_by_what_they_depend_on(
    built_dir: Path,
) -> None:
    manifest, version = EngineManifest.load(built_dir), trt_build.library().__version__
    made = {path.name for path in built_dir.glob("*.engine")}
    wanted = {
        f"{a.file.removesuffix('.onnx')}.{a.sha256[:12]}.sm86.tensorrt_rtx-{version}.engine"
        for precision in PRECISIONS
        for files in manifest.graphs[precision].values()
        for a in [files["dynamic"]]
    }
    assert made == wanted
    assert len(made) == 10  # four graphs of float32, and three narrow ones of either kind
    assert not list(built_dir.glob("*.partial"))


def test_whole_engines_are_kept_and_damaged_ones_built_again(
    built_dir: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(built_dir, tmp_path / "engines"))
    damaged = next(folder.glob("condition.w4a16.*.engine"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    manifest, made_for = EngineManifest.load(folder), trt_build.target("8.6")
    with pytest.raises(EngineError, match="is damaged"):
        trt_build.read_engine(damaged, folder)
    done: dict[str, bool] = {}
    trt_build.build_all(
        folder, manifest, made_for, PRECISIONS, done=lambda p, built: done.update({p.name: built})
    )
    assert [name for name, built in done.items() if built] == [damaged.name]
    trt_build.read_engine(damaged, folder)


def test_fp8_is_built_for_gpus_that_have_it(fresh_dir: Path) -> None:
    manifest, ada = EngineManifest.load(fresh_dir), trt_build.target("8.9")
    found = trt_build.build_all(fresh_dir, manifest, ada, ["fp8"])
    graphs = ["vision.fp32", "backbone.fp8", "condition.fp8", "step.fp8"]
    assert [".".join(path.name.split(".")[:2]) for path in found] == graphs
    with pytest.raises(EngineError, match=r"fp8 cannot run on compute capability 8\.6"):
        trt_build.build_all(fresh_dir, manifest, trt_build.target("8.6"), ["fp8"])


@pytest.mark.parametrize("precision", ["w8a8", "fp8"])
def test_narrow_products_are_built_beside_half_ones(
    policy: ReferencePolicy, requests: list[InferenceRequest], tmp_path: Path, precision: str
) -> None:
    """The default of TensorRT: what stays wide is float16, and so are the scales."""
    config = ExportConfig((precision,), ("backbone",), base="fp16", mixture="dense")
    manifest = export(policy, tmp_path, config, [r.observation for r in requests])
    (path,) = trt_build.build_all(tmp_path, manifest, trt_build.target("8.9"), [precision])
    assert path.stat().st_size > 1000


def test_an_engine_for_another_gpu_is_missed_by_name(built_dir: Path) -> None:
    manifest = EngineManifest.load(built_dir)
    artifact = manifest.artifact("fp32", "step")
    orin = trt_build.Target("tensorrt", "10.3.0", "8.7")
    path = trt_build.engine_path(built_dir, artifact, orin)
    with pytest.raises(EngineError, match=r"sm87.tensorrt-10.3.0.engine' is missing.*sm86"):
        trt_build.read_engine(path, built_dir)


def test_an_operator_that_tensorrt_does_not_know_is_named(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Abacus", ["x"], ["y"], domain="my.own")
    imports = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("my.own", 1)]
    graph = onnx.helper.make_graph([node], "g", [value], [out])
    model = onnx.helper.make_model(graph, opset_imports=imports).SerializeToString()
    with pytest.raises(EngineError, match=r"cannot read 'step'.*Abacus"):
        trt_build.build(model, "step", trt_build.target("8.6"), tmp_path, 4, 8)


@pytest.mark.parametrize(
    ("precision", "gpu", "text"),
    [
        ("w4a8", "8.6", "INT4 is weight-only"),
        ("w4a16", "7.5", "needs int4_weights"),
        ("bf16", "7.5", "needs bf16"),
        ("fp8", "8.6", r"\(RTX 30, A10\): it needs fp8, which 8\.9, 9\.0"),
        ("fp8", "8.7", "Jetson Orin"),
        ("fp32", "5.2", "'5.2' is unknown"),
    ],
)
def test_precisions_are_refused_where_the_gpu_has_none(
    precision: str, gpu: str, text: str
) -> None:
    with pytest.raises(EngineError, match=text):
        capability.check(precision, gpu)


def test_the_table_of_gpus_says_what_the_hardware_lacks() -> None:
    table = capability.CAPABILITIES
    assert not table["8.7"].fp8  # Orin
    assert not table["9.0"].int4_compute  # Hopper
    assert table["9.0"].fp8
    assert table["8.9"].fp8


def test_targets_that_cannot_be_built_for_are_refused_before_the_export(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot build for 8.7, only for .*8.6"):
        trt_build.target("8.7")
    wanted = ["--engine", "tensorrt", "--compute-capability", "7.5", "--precision", "w4a16"]
    assert command.main(["--out", str(tmp_path / "out"), *wanted]) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_running_without_a_gpu_is_refused_and_doctor_says_so(built_dir: Path) -> None:
    with pytest.raises(EngineError, match="needs a GPU"):
        exported(built_dir, "tensorrt")
    (found,) = [(usable, text) for name, usable, text in engines() if name == "tensorrt"]
    assert found[0] is False
    assert "8.6" in found[1]
    assert "there is no GPU" in found[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="running an engine needs a GPU")
def test_engines_answer_like_torch(
    fresh_dir: Path, policy: ReferencePolicy, requests: list[InferenceRequest]
) -> None:
    manifest = EngineManifest.load(fresh_dir)
    trt_build.build_all(fresh_dir, manifest, trt_build.target(), ["fp32", "w8a8"])
    engine = exported(fresh_dir, "tensorrt")
    for ours, theirs in zip(engine.infer(requests), policy.infer(requests), strict=True):
        assert np.abs(ours.actions - theirs.actions).max() < 1e-2  # TF32
