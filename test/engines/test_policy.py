"""A policy on ONNX Runtime answers like the one in torch, and refuses what it cannot trust."""

from __future__ import annotations

import json
import logging
import queue
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ros_vla_accel.cloud import worker_main
from ros_vla_accel.contracts import InferenceRequest
from ros_vla_accel.engines import EngineChoice, EngineError, exported
from ros_vla_accel.engines.policy import ExportedPolicy
from ros_vla_accel.nodes.policy_runner import PolicyRunner
from ros_vla_accel.policies import PolicyLoadError
from ros_vla_accel.policies.reference_policy import ReferencePolicy

REFERENCE = "ros_vla_accel.policies:reference"
Difference = Callable[..., float]


@pytest.fixture(scope="module")
def engine(exported_dir: Path) -> ExportedPolicy:
    return exported(exported_dir)


def test_float32_answers_like_torch_at_any_batch_size(
    engine: ExportedPolicy,
    policy: ReferencePolicy,
    requests: list[InferenceRequest],
    largest_difference: Difference,
) -> None:
    for batch in (requests, requests[:1], requests[:2]):
        assert largest_difference(engine.infer(batch), policy.infer(batch)) < 1e-5
    assert engine.spec.identity == policy.spec.identity


def test_features_of_either_cut_give_the_same_chunk(
    engine: ExportedPolicy,
    policy: ReferencePolicy,
    requests: list[InferenceRequest],
    largest_difference: Difference,
) -> None:
    whole = policy.infer(requests[:1])
    for cut in ("vision", "backbone"):
        for encoder, answerer in ((engine, policy), (policy, engine), (engine, engine)):
            features = encoder.encode(requests[0].observation, cut)
            answer = answerer.infer([replace(requests[0], observation=features)])
            assert largest_difference(answer, whole) < 1e-5


def test_solvers_of_second_order_run_on_the_same_graphs(
    engine: ExportedPolicy, policy: ReferencePolicy
) -> None:
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(1, 24, 64, generator=generator)
    noise = torch.randn(1, 1, 16, 4, generator=generator)
    with torch.inference_mode(), engine.model.inference(16):
        for solver in ("euler", "midpoint", "heun"):
            theirs = policy.model.act(context, noise, 4, policy._bounds, solver)
            ours = engine.model.act(context, noise, 4, engine._bounds, solver)
            assert torch.allclose(ours, theirs, atol=1e-5), solver


def test_widths_without_an_engine_run_at_the_next_one_and_chunks_say_so(
    engine: ExportedPolicy, requests: list[InferenceRequest]
) -> None:
    assert engine.spec.widths == (8, 16)
    assert engine.precisions == {8: "w8a8", 16: "fp32"}
    executed = {
        bits: engine.infer([replace(requests[0], activation_bits=bits)])[0].activation_bits
        for bits in (2, 4, 8, 16)
    }
    assert executed == {2: 8, 4: 8, 8: 8, 16: 16}
    assert engine.mapping() == ("2 bits: w8a8 (8), 4 bits: w8a8 (8), 8 bits: w8a8, 16 bits: fp32")


def test_precisions_are_chosen_by_name_and_differ(
    exported_dir: Path,
    engine: ExportedPolicy,
    requests: list[InferenceRequest],
    largest_difference: Difference,
) -> None:
    int4 = exported(exported_dir, precisions=["w4a16", "w4a8"])
    narrow = [replace(r, activation_bits=8) for r in requests]
    answers = [int4.infer(requests), int4.infer(narrow), engine.infer(requests)]
    assert largest_difference(answers[0], answers[1]) > 0
    assert 1e-4 < largest_difference(answers[0], answers[2]) < 0.5


def test_a_warm_start_works_as_in_torch_and_a_cache_is_refused(
    exported_dir: Path,
    policy: ReferencePolicy,
    requests: list[InferenceRequest],
    checkpoint: Path,
    largest_difference: Difference,
) -> None:
    warm = exported(exported_dir, precisions=["fp32"], warm_start=0.5)
    torch_warm = ReferencePolicy(checkpoint, steps=policy.steps, warm_start=0.5)
    (previous,) = policy.infer(requests[:1])
    asked = [replace(requests[0], seed=9, previous=previous, executed_rows=4)]
    assert largest_difference(warm.infer(asked), torch_warm.infer(asked)) < 1e-5
    with pytest.raises(ValueError, match="needs engine: torch"):
        warm.accelerate({}, 0.0)


def test_threads_spin_for_a_bounded_time_or_not_at_all() -> None:
    from ros_vla_accel.engines.onnxruntime_engine import SPIN_US, session_options

    spinning, bound = "session.intra_op.allow_spinning", "session.intra_op.spin_duration_us"
    assert session_options(1, None).get_session_config_entry(spinning) == "0"
    two = session_options(2, None)
    if two.get_session_config_entry(spinning) == "1":  # From ONNX Runtime 1.26 on.
        assert two.get_session_config_entry(bound) == str(SPIN_US)


def test_fixed_shapes_answer_a_batch_one_by_one(
    exported_dir: Path,
    policy: ReferencePolicy,
    requests: list[InferenceRequest],
    largest_difference: Difference,
) -> None:
    fixed = exported(exported_dir, precisions=["fp32"], shapes="1")
    assert largest_difference(fixed.infer(requests), policy.infer(requests)) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"precisions": ["w8a8"]}, "needs a precision of 16 bits"),
        ({"precisions": ["fp32", "w4a16"]}, "both for 16 bits"),
        ({"precisions": ["fp16"]}, "'fp16' was not exported"),
        ({"steps": 7}, "export again with --steps 7|steps 7 needs scales"),
        ({"warm_start": 0.5}, "neither a warm start"),
        ({"solver": "heun"}, "nor a solver of second order"),
        ({"shapes": "3"}, "must be dynamic or 1"),
        ({"engine": "abacus"}, "'abacus' is unknown"),
    ],
)
def test_what_was_not_exported_is_refused(exported_dir: Path, arguments: dict, text: str) -> None:
    with pytest.raises(EngineError, match=text):
        exported(exported_dir, **arguments)


def test_damaged_and_missing_files_are_named(fresh_dir: Path) -> None:
    step = fresh_dir / "step.fp32.onnx"
    data = bytearray(step.read_bytes())
    data[len(data) // 2] ^= 1
    step.write_bytes(data)
    with pytest.raises(EngineError, match=r"step.fp32.onnx' has SHA-256 .* damaged"):
        exported(fresh_dir)
    step.unlink()
    with pytest.raises(EngineError, match=r"step.fp32.onnx' is missing"):
        exported(fresh_dir)
    (fresh_dir / "engines.json").write_text("{}")
    with pytest.raises(EngineError, match="not a valid manifest"):
        exported(fresh_dir)
    with pytest.raises(EngineError, match="no engines in"):
        exported(fresh_dir / "nowhere")


def test_a_graph_that_onnx_runtime_cannot_run_is_refused(fresh_dir: Path) -> None:
    from ros_vla_accel.engines.manifest import digest

    step = fresh_dir / "step.fp32.onnx"
    step.write_bytes(b"no graph")
    manifest = json.loads((fresh_dir / "engines.json").read_text())
    manifest["graphs"]["fp32"]["step"]["dynamic"]["sha256"] = digest(b"no graph")
    (fresh_dir / "engines.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"cannot run 'step.fp32.onnx' on this CPU"):
        exported(fresh_dir)


def test_engines_of_another_checkpoint_are_refused(exported_dir: Path) -> None:
    choice = EngineChoice("onnxruntime", exported_dir)
    with pytest.raises(PolicyLoadError, match=r"are of checkpoint .*; export that one"):
        choice.load(REFERENCE)
    with pytest.raises(PolicyLoadError, match=r"only .* can be exported"):
        choice.load("my_policy:make")
    with pytest.raises(PolicyLoadError, match="unknown; choose from torch"):
        EngineChoice("abacus").load(REFERENCE)


def test_torch_takes_over_only_if_told_to(
    checkpoint: Path,
    policy: ReferencePolicy,
    requests: list[InferenceRequest],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    args = {"checkpoint": str(checkpoint), "steps": 4, "precisions": ["fp32"]}
    with pytest.raises(PolicyLoadError, match=r"no engines in .* engine_fallback"):
        EngineChoice("onnxruntime", tmp_path).load(REFERENCE, args)
    with caplog.at_level(logging.WARNING):
        loaded = EngineChoice("onnxruntime", tmp_path, fallback=True).load(REFERENCE, args)
    assert not isinstance(loaded, ExportedPolicy)
    assert "Running in torch instead" in caplog.text
    (ours,), (theirs,) = loaded.infer(requests[:1]), policy.infer(requests[:1])
    assert np.array_equal(ours.actions, theirs.actions)


def test_the_nodes_runner_answers_from_an_engine(
    checkpoint: Path, exported_dir: Path, requests: list[InferenceRequest], tmp_path: Path
) -> None:
    (tmp_path / "args.yaml").write_text(f"checkpoint: {checkpoint}\n")
    events: queue.Queue = queue.Queue()
    runner = PolicyRunner(
        REFERENCE,
        str(tmp_path / "args.yaml"),
        1,
        events.put,
        lambda chunk, seconds: events.put(chunk),
        lambda request, text: events.put(text),
        EngineChoice("onnxruntime", str(exported_dir)),
    )
    try:
        loaded = events.get(timeout=60)
        assert isinstance(loaded, ExportedPolicy), loaded
        runner.infer(replace(requests[0], activation_bits=4))
        chunk = events.get(timeout=60)
        assert chunk.activation_bits == 8
        assert chunk.source == "edge"
    finally:
        runner.close()


def test_the_worker_ends_with_status_1_when_its_engine_cannot_be_had(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["--insecure", "--bind", "tcp://127.0.0.1:*", "--engine", "onnxruntime"]
    with caplog.at_level(logging.ERROR):
        assert worker_main.main([*arguments, "--engine-dir", str(tmp_path)]) == 1
    assert "no engines in" in caplog.text
