"""Stages of the reference VLA to ONNX: one trace per graph, then one file per precision.

Weights are made narrow by ONNX Runtime's own tools: INT4 in blocks by its ``MatMulNBitsQuantizer``
as ``DequantizeLinear`` (portable: TensorRT reads it, ONNX Runtime fuses it to ``MatMulNBits``),
INT8 by its ``QDQQuantizer`` as Q/DQ pairs, symmetric, per channel for weights and per tensor for
activations, with the ranges that were recorded in torch; FP8 likewise (``fp8.py``). Which layers:
those of ``policies.quantized.packable``, as in torch.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed
from torch import Tensor

from ros_vla_accel.engines.calibration import record
from ros_vla_accel.engines.errors import EngineError
from ros_vla_accel.engines.fp8 import fp8
from ros_vla_accel.engines.manifest import (
    DYNAMIC,
    FILES_OF,
    PRECISIONS,
    STATIC,
    Artifact,
    EngineManifest,
    digest,
)
from ros_vla_accel.engines.stages import (
    MIXTURES,
    STAGE_GRAPHS,
    Step,
    example_inputs,
    graph_module,
    signature,
    traceable_copy,
)
from ros_vla_accel.policies.model import ReferenceVLA
from ros_vla_accel.policies.quantized import packable
from ros_vla_accel.policies.reference_policy import ReferencePolicy

OPSET = 21
"""The first with INT4 and blocks in DequantizeLinear."""
AUTO = "auto"
BF16_OPSET = 22
"""The first with convolutions in bfloat16."""
BASES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_PREFIX = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class ExportConfig:
    """precisions: of ``manifest.PRECISIONS``; the first of each width is what a policy runs by
    default. base: type of what stays wide in the narrow ones (fp32, fp16, bf16). stages: those to
    export. mixture: form of the mixtures of experts: routed, dense, or auto, see ``form``.
    batches: fixed batch sizes besides the dynamic one. block_size: of INT4 weights."""

    precisions: tuple[str, ...] = ("fp32", "w4a8")
    stages: tuple[str, ...] = tuple(STAGE_GRAPHS)
    base: str = "fp32"
    mixture: str = AUTO
    batches: tuple[int, ...] = ()
    block_size: int = 64

    def __post_init__(self) -> None:
        for name, values, known in (
            ("precision", self.precisions, PRECISIONS),
            ("stage", self.stages, STAGE_GRAPHS),
            ("base", (self.base,), BASES),
            ("mixture", (self.mixture,), (AUTO, *MIXTURES)),
        ):
            for value in values:
                if value not in known:
                    raise EngineError(f"{name} '{value}' is unknown; choose from {list(known)}")
        if self.block_size not in (64, 128):
            raise EngineError(f"block size {self.block_size} must be 64 or 128")
        static = [precision for precision in self.precisions if precision in STATIC]
        if static and self.base == "bf16":
            # ONNX Runtime's quantizer has no such scales.
            raise EngineError(f"{static[0]} needs base fp32 or fp16, not bf16")
        if any(batch < 1 for batch in self.batches):
            raise EngineError(f"batch sizes {self.batches} must be at least 1")

    def form(self, precision: str) -> str:
        """Of the mixtures. Quantizing each expert's few rows apart costs INT8 more than zeros."""
        if self.mixture != AUTO:
            return self.mixture
        return "dense" if precision in STATIC else "routed"

    @property
    def graphs(self) -> tuple[str, ...]:
        return tuple(g for stage in self.stages for g in STAGE_GRAPHS[stage])


def export(
    policy: ReferencePolicy, folder: Path, config: ExportConfig, calibration: Sequence[Any] = ()
) -> EngineManifest:
    """Writes the graphs and ``engines.json``.

    policy: float32, on the CPU, not quantized, else EngineError. calibration: observations, which
    ``STATIC`` precisions need. Raises EngineError also for an operator that ONNX has no form for.
    """
    if not isinstance(policy, ReferencePolicy) or len(policy.spec.widths) > 1:
        raise EngineError(
            f"policy '{policy.spec.name}' cannot be exported: it must be the reference policy "
            "(ros_vla_accel.policies:reference) with `quantize` left out"
        )
    if policy.dtype != torch.float32 or policy.device.type != "cpu":
        raise EngineError("export needs the policy in float32 on the CPU; leave dtype and device")
    wanted = tuple(dict.fromkeys(FILES_OF.get(p, p) for p in config.precisions))
    static = [precision for precision in wanted if precision in STATIC]
    if static and not calibration:
        raise EngineError(
            f"{static[0]} has static scales and needs calibration data: give --calibration FILE, "
            "or record one in the simulator with --record-calibration FILE"
        )
    folder.mkdir(parents=True, exist_ok=True)
    recorded = None
    if static:
        own = copy.copy(policy)
        own.model = traceable_copy(policy.model, config.form(static[0]))
        recorded = record(own, calibration)
    writer = _Writer(folder, config)
    traced: dict[tuple[str, str, str, bool], onnx.ModelProto] = {}
    graphs: dict[str, dict[str, dict[str, Artifact]]] = {}
    for precision in wanted:
        base = precision if precision in BASES else config.base
        form = config.form(precision)
        model = traceable_copy(policy.model, form, BASES[base])
        for graph in config.graphs:
            largest = recorded.largest if recorded and precision in STATIC else None
            scaled = largest is not None and graph == "step"
            # Without mixtures, a graph is the same in either form.
            key = (base, graph, form if graph == "step" else "", scaled)
            if key not in traced:
                traced[key] = trace(graph, model, largest if scaled else None)
            plain = traced[key]
            if precision in BASES:
                made, layers = plain, ([], 0)
            elif precision == "w4a16":
                made, layers = int4(plain, config.block_size)
            else:
                assert largest is not None
                made, layers = int8(graph, plain, largest)
                made = fp8(made, plain) if precision == "fp8" and layers[0] else made
            label = precision if layers[0] else base
            graphs.setdefault(precision, {})[graph] = writer.write(made, graph, label, layers)
    # In the order that was asked for, which is the order of preference.
    ordered = {p: graphs[FILES_OF.get(p, p)] for p in config.precisions}
    manifest = EngineManifest(
        identity=policy.spec.identity,
        policy=policy.manifest.to_dict(),
        base=config.base,
        mixture={precision: config.form(precision) for precision in ordered},
        opset=OPSET,
        steps=policy.steps,
        block_size=config.block_size,
        calibration=dict(recorded.source) if recorded else None,
        versions={
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        graphs=ordered,
    )
    manifest.save(folder)
    return manifest


def trace(
    graph: str, model: ReferenceVLA, largest: dict[str, Tensor] | None = None
) -> onnx.ModelProto:
    """The graph with a dynamic batch (and number of steps).

    model: from ``traceable_copy``. largest: for ``step``, see ``stages.Step``: it changes model.
    """
    in_step = {n: t for n, t in (largest or {}).items() if t.ndim}
    module = Step(model, in_step).eval() if in_step else graph_module(graph, model)
    bf16 = model.head.position.dtype == torch.bfloat16
    shapes = signature(graph, model.config)
    example = tuple(example_inputs(graph, model, batch=2, steps=3).values())
    dynamic: list[Any] = [
        {axis: size for axis, size in enumerate(shape) if isinstance(size, str)}
        for shape in shapes.inputs.values()
    ]
    if graph == "step":
        dynamic = [*dynamic[:2], tuple(dynamic[2:])]
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=BF16_OPSET if bf16 else OPSET,
                input_names=list(shapes.inputs),
                output_names=list(shapes.outputs),
                dynamic_shapes=tuple(dynamic),
                verbose=False,
            )
    except Exception as error:  # The exporter raises what each of its stages raises.
        cause = error.__cause__ or error
        raise EngineError(
            f"graph '{graph}' cannot be exported: {type(cause).__name__}: {str(cause)[:500]}"
        ) from error
    assert program is not None
    return program.model_proto


def layer_of(node: onnx.NodeProto) -> str:
    """Name of the ``nn.Linear`` that a product was traced from; "" for others."""
    scopes = next((p.value for p in node.metadata_props if p.key == _PREFIX), "[]")
    names = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
    return names[-2] if len(names) > 1 and names[-1].startswith("linear") else ""


def _products(model: onnx.ModelProto) -> tuple[dict[str, str], int]:
    """Node -> layer, of the products to make narrow; and how many others have weights."""
    constants = {tensor.name for tensor in model.graph.initializer}
    chosen, kept = {}, 0
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in constants:
            continue
        name = layer_of(node)
        if node.op_type == "MatMul" and packable(torch.nn.Linear(1, 1), name):
            chosen[node.name] = name
        else:
            kept += 1
    return chosen, kept


def int4(model: onnx.ModelProto, block_size: int) -> tuple[onnx.ModelProto, tuple[list[str], int]]:
    """A copy with INT4 weights: symmetric, one scale per block of inputs and output channel."""
    chosen, kept = _products(model)
    copied = onnx.ModelProto.FromString(model.SerializeToString())
    if not chosen:
        return copied, ([], kept)
    settings = DefaultWeightOnlyQuantConfig(
        block_size=block_size,
        is_symmetric=True,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=("MatMul",),
    )
    with _quiet():
        quantizer = MatMulNBitsQuantizer(
            copied,
            algo_config=settings,
            nodes_to_exclude=[n.name for n in copied.graph.node if n.name not in chosen],
        )
        quantizer.process()
    return quantizer.model.model, (list(chosen.values()), kept)


def int8(
    graph: str, plain: onnx.ModelProto, largest: dict[str, Tensor]
) -> tuple[onnx.ModelProto, tuple[list[str], int]]:
    """A copy with Q/DQ pairs around the packed layers; ``step`` was traced with ``largest``."""
    chosen, kept = _products(plain)
    if not chosen:
        return plain, ([], kept)
    copied = onnx.ModelProto.FromString(plain.SerializeToString())
    limits = {}
    weights = {t.name: t.data_type for t in copied.graph.initializer}
    for node in copied.graph.node:
        if node.name in chosen:
            # Scales have the type that a dequantized product is computed in.
            kind = onnx.helper.tensor_dtype_to_np_dtype(weights[node.input[1]]).type
            # StepScaled has brought its input to -1..1.
            high = kind(1.0 if graph == "step" else largest[chosen[node.name]].item())
            limits[node.input[0]] = TensorData(lowest=-high, highest=high)
    with _quiet():
        quantizer = QDQQuantizer(
            copied,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
            nodes_to_quantize=list(chosen),
            nodes_to_exclude=[],
            op_types_to_quantize=["MatMul"],
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
                "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    made = quantizer.model.model
    return _spare_others(made, chosen), (list(chosen.values()), kept)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporter and quantizers say about every node; their errors are raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(disabled)


def _spare_others(model: onnx.ModelProto, chosen: Collection[str]) -> onnx.ModelProto:
    """Gives whoever stays wide the wide tensor: the quantizer hands the rounded one to all that
    read it, here the summary token, and ONNX Runtime's optimizer then fails on its slice
    (https://github.com/microsoft/onnxruntime/issues/25526)."""
    quantized = {
        n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"
    }
    wide = {
        n.output[0]: quantized[n.input[0]]
        for n in model.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in quantized
    }
    for node in model.graph.node:
        if node.name not in chosen:
            node.input[:] = [wide.get(name, name) for name in node.input]
    return model


class _Writer:
    """Writes each file once, whole or not at all."""

    def __init__(self, folder: Path, config: ExportConfig) -> None:
        self.folder, self.config = folder, config
        self.done: dict[tuple[str, str], dict[str, Artifact]] = {}

    def write(
        self, model: onnx.ModelProto, graph: str, label: str, layers: tuple[list[str], int]
    ) -> dict[str, Artifact]:
        """Shapes -> file; a graph without narrow layers is the file of its base."""
        if (graph, label) in self.done:
            return self.done[graph, label]
        found = {DYNAMIC: self._one(model, f"{graph}.{label}.onnx", layers)}
        for batch in self.config.batches:
            fixed = onnx.ModelProto.FromString(model.SerializeToString())
            make_dim_param_fixed(fixed.graph, "batch", batch)
            name = f"{graph}.{label}.batch{batch}.onnx"
            found[str(batch)] = self._one(fixed, name, layers)
        self.done[graph, label] = found
        return found

    def _one(self, model: onnx.ModelProto, name: str, layers: tuple[list[str], int]) -> Artifact:
        onnx.checker.check_model(model)
        data = model.SerializeToString(deterministic=True)
        partial = self.folder / f"{name}.partial"
        partial.write_bytes(data)
        partial.replace(self.folder / name)
        ends = [
            {v.name: [_type(v), _shape(v)] for v in values}
            for values in (model.graph.input, model.graph.output)
        ]
        return Artifact(name, digest(data), *ends, *layers)


def _type(value: onnx.ValueInfoProto) -> str:
    return onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
