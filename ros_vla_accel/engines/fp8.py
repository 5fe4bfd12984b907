"""FP8 graphs, of those with INT8 Q/DQ pairs: the same layers and ranges, another type.

ONNX Runtime's quantizer places the pairs but has no per-channel FP8; types and scales are changed
here. E4M3 for weights and activations, as TensorRT's FP8 products take.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper

INT8_LARGEST = 127.0
E4M3_LARGEST = 448.0


def fp8(narrow: onnx.ModelProto, plain: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``narrow`` in FP8.

    narrow: from ``export.int8``, its scales for INT8. plain: the graph that it was made from,
    whose weights are rounded once only, from float.
    """
    made = onnx.ModelProto.FromString(narrow.SerializeToString())
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    floats = {t.name: t for t in plain.graph.initializer}
    changed: set[str] = set()
    for node in made.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        value, scale, zero = node.input
        if value in tensors and node.op_type == "DequantizeLinear":
            source = floats[value.removesuffix("_quantized")]
            weight = numpy_helper.to_array(source).astype(np.float32)
            largest = np.abs(weight).max(axis=0)  # Per output channel of (inputs, outputs).
            steps = np.maximum(largest, 1e-12) / E4M3_LARGEST
            _store(tensors[value], weight / steps)
            _scale(tensors[scale], steps)
            changed |= {value, scale}
        elif scale not in changed:
            # Of an activation; its quantizer and its dequantizer share it.
            largest = numpy_helper.to_array(tensors[scale]).astype(np.float32) * INT8_LARGEST
            _scale(tensors[scale], largest / E4M3_LARGEST)
            changed.add(scale)
        if zero not in changed:
            _store(tensors[zero], np.zeros(list(tensors[zero].dims), np.float32))
            changed.add(zero)
    return made


def _store(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    """Overwrites it with values in E4M3, rounded to nearest."""
    packed = torch.from_numpy(np.array(values, np.float32)).to(torch.float8_e4m3fn)
    raw = packed.view(torch.uint8).numpy().tobytes()
    made = onnx.TensorProto(
        name=tensor.name,
        dims=values.shape,
        data_type=onnx.TensorProto.FLOAT8E4M3FN,
        raw_data=raw,
    )
    tensor.CopyFrom(made)


def _scale(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    """Overwrites it in its own type: that of the wide layers."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    made = numpy_helper.from_array(np.asarray(values).astype(kind), tensor.name)
    assert list(made.dims) == list(tensor.dims), tensor.name
    tensor.CopyFrom(made)
