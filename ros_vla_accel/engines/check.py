"""``export --check``: every precision on ONNX Runtime against the policy in torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ros_vla_accel.contracts import InferenceRequest, Observation, PolicySpec
from ros_vla_accel.engines.calibration import record
from ros_vla_accel.engines.errors import EngineError
from ros_vla_accel.engines.manifest import DYNAMIC, PRECISIONS, EngineManifest
from ros_vla_accel.engines.onnxruntime_engine import OnnxRuntimeEngine, OnnxSession
from ros_vla_accel.engines.policy import ExportedPolicy
from ros_vla_accel.engines.stages import GRAPHS, graph_module, traceable_copy
from ros_vla_accel.policies.reference_policy import ReferencePolicy

INPUTS = 8
"""Calls of each graph that are compared."""
_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Difference:
    """Of one precision and graph (or of whole ``actions``) from float32 in torch.

    largest and rms: absolute, in the unit of the output (actions in their units). scale: largest
    magnitude of torch's output. problem: why it could not be run, or empty.
    """

    precision: str
    graph: str
    shapes: str
    largest: float = float("nan")
    rms: float = float("nan")
    scale: float = float("nan")
    problem: str = ""


def check(
    policy: ReferencePolicy,
    folder: Path,
    requests: Sequence[InferenceRequest],
    precisions: Sequence[str] | None = None,
) -> list[Difference]:
    """Graph by graph, each on inputs from torch, then actions of whole inferences.

    requests: whole observations. precisions: None: those of the manifest.
    """
    manifest = EngineManifest.load(folder)
    model = traceable_copy(policy.model, "dense")
    own = copy.copy(policy)
    own.model = model
    feeds = record(own, [r.observation for r in requests]).feeds  # type: ignore[misc]
    found = []
    for precision in precisions or manifest.graphs:
        for graph, files in manifest.graphs[precision].items():
            for shapes in files:
                some = feeds[graph][:: max(1, len(feeds[graph]) // INPUTS)]
                engine = OnnxRuntimeEngine(folder, manifest, 1, shapes)
                module = graph_module(graph, model)
                batch = 2 if shapes == DYNAMIC else int(shapes)
                found.append(_graph(engine, module, some, precision, graph, shapes, batch))
        if set(manifest.graphs[precision]) >= set(GRAPHS):
            found.append(_actions(policy, manifest, folder, requests, precision))
    return found


def random_observation(spec: PolicySpec, seed: int) -> Observation:
    """Images and joints of noise: nothing that a policy was trained for."""
    rng = np.random.default_rng(seed)
    images = {
        c.name: rng.integers(0, 255, (c.height, c.width, 3), dtype=np.uint8) for c in spec.cameras
    }
    state = rng.standard_normal(len(spec.state_names)).astype(np.float32)
    return Observation(images, state, "open the drawer", seed)


def _graph(
    engine: OnnxRuntimeEngine,
    module: nn.Module,
    feeds: Sequence[dict[str, Tensor]],
    precision: str,
    graph: str,
    shapes: str,
    batch: int,
) -> Difference:
    """Inputs are those of torch's own inferences, each ``batch`` times."""
    errors, largest = [], 0.0
    try:
        session = engine.session(precision, graph)
        for feed in feeds:
            inputs = {
                name: tensor if name in ("index", "times") else torch.cat([tensor] * batch)
                for name, tensor in feed.items()
            }
            with torch.inference_mode():
                outputs = module(*inputs.values())
            expected = outputs if isinstance(outputs, tuple) else (outputs,)
            for got, want in zip(_run(session, inputs, expected), expected, strict=True):
                errors.append((got.float() - want).flatten())
                largest = max(largest, float(want.abs().max()))
    except EngineError as error:
        return Difference(precision, graph, shapes, problem=str(error))
    every = torch.cat(errors)
    rms = float(every.square().mean().sqrt())
    return Difference(precision, graph, shapes, float(every.abs().max()), rms, largest)


def _run(
    session: OnnxSession, inputs: dict[str, Tensor], expected: Sequence[Tensor]
) -> list[Tensor]:
    kept = {
        name: tensor.to(_TYPES.get(session.inputs[name], tensor.dtype)).contiguous()
        for name, tensor in inputs.items()
    }
    outs = [
        torch.empty(want.shape, dtype=_TYPES.get(kind, torch.float32))
        for want, kind in zip(expected, session.outputs.values(), strict=True)
    ]
    for name, tensor in (*kept.items(), *zip(session.outputs, outs, strict=True)):
        session.bind(name, tensor)
    session.run()
    return outs


def _actions(
    policy: ReferencePolicy,
    manifest: EngineManifest,
    folder: Path,
    requests: Sequence[InferenceRequest],
    precision: str,
) -> Difference:
    width = PRECISIONS[precision]
    # A policy needs 16 bits; a narrow precision is judged alone all the same.
    wide = next((p for p in manifest.graphs if PRECISIONS[p] == 16), None)
    chosen = [precision] if width == 16 or wide is None else [wide, precision]
    try:
        engine = OnnxRuntimeEngine(folder, manifest)
        exported = ExportedPolicy(manifest, engine, chosen, policy.steps)
        errors, scale = [], 0.0
        for request in requests:
            (expected,) = policy.infer([request])
            (got,) = exported.infer([replace(request, activation_bits=width)])
            errors.append(got.actions - expected.actions)
            scale = max(scale, float(np.abs(expected.actions).max()))
    except EngineError as error:
        return Difference(precision, "actions", DYNAMIC, problem=str(error))
    stacked = np.stack(errors)
    rms = float(np.sqrt(np.square(stacked).mean()))
    return Difference(precision, "actions", DYNAMIC, float(np.abs(stacked).max()), rms, scale)
