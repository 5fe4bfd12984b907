"""Graphs on ONNX Runtime's CPU provider, bound to torch's memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from ros_vla_accel.engines.errors import EngineError
from ros_vla_accel.engines.manifest import (
    DYNAMIC,
    EngineManifest,
    read_verified,
)

ACCURACY_LEVELS = {"w4a16": 1, "w4a8": 4}
"""Of ``MatMulNBits``: 1 multiplies in float32, 4 quantizes activations to INT8 per block."""
_BROKEN_OPTIMIZER = "QDQPropagationTransformer"
"""It copies INT8 quantizers through reshapes in a form that the next optimizer cannot read
(https://github.com/microsoft/onnxruntime/issues/25526); without it, times are the same."""
_BOUNDED_SPINNING = (1, 26)
"""First version in which threads can be told for how long to spin."""
SPIN_US = 100
"""Two threads, batch one / eight, ms: none 52 / 164, 20 us 43 / 133, 100 us 34 / 121, 1 ms 39 /
123, without bound 79 / 166; torch 56 / 138."""
_NUMPY = {
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.uint8: np.uint8,
    torch.int64: np.int64,
}


class OnnxSession:
    """``GraphSession`` of one ``InferenceSession``."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._binding = session.io_binding()
        self.inputs = {v.name: _element(v.type) for v in session.get_inputs()}
        self.outputs = {v.name: _element(v.type) for v in session.get_outputs()}

    def bind(self, name: str, tensor: Tensor) -> None:
        put = self._binding.bind_input if name in self.inputs else self._binding.bind_output
        # bfloat16, which NumPy has not, is given by its number in ONNX.
        kind = _NUMPY.get(tensor.dtype, 16)
        put(name, "cpu", 0, kind, list(tensor.shape), tensor.data_ptr())

    def run(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # pybind classes of their own for each status.
            raise EngineError(f"ONNX Runtime failed: {error}") from error


class OnnxRuntimeEngine:
    """Sessions of a folder's graphs; graphs that two precisions share are loaded once.

    threads: of one product. shapes: "dynamic", or a batch size that was exported.
    """

    name, device = "onnxruntime", "cpu"

    def __init__(
        self, folder: Path, manifest: EngineManifest, threads: int = 1, shapes: str = DYNAMIC
    ) -> None:
        self._folder, self._manifest = folder, manifest
        self._threads, self._shapes = threads, shapes
        self._sessions: dict[tuple[str, int | None], OnnxSession] = {}

    def session(self, precision: str, graph: str) -> OnnxSession:
        artifact = self._manifest.artifact(precision, graph, self._shapes)
        level = ACCURACY_LEVELS.get(precision) if artifact.quantized else None
        key = (artifact.file, level)
        if key not in self._sessions:
            data = read_verified(self._folder, artifact)
            options = session_options(self._threads, level)
            self._sessions[key] = OnnxSession(load(data, artifact.file, options))
        return self._sessions[key]


def session_options(threads: int, accuracy_level: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Without spinning, waking a thread costs more than most operators; with ONNX Runtime's own
    # spinning, the threads of each session burn the cores that the others want.
    spins = threads > 1 and _version() >= _BOUNDED_SPINNING
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    if spins:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    if accuracy_level is not None:
        key = "session.qdq_matmulnbits_accuracy_level"
        options.add_session_config_entry(key, str(accuracy_level))
    return options


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])


def load(
    data: bytes, name: str, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    """Raises EngineError for a damaged file, or an operator without a kernel here."""
    try:
        return onnxruntime.InferenceSession(
            data,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[_BROKEN_OPTIMIZER],
        )
    except Exception as error:  # pybind classes of their own for each status.
        raise EngineError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run '{name}' on this CPU: {error}"
        ) from error


def _element(text: str) -> str:
    return text.removeprefix("tensor(").removesuffix(")")
