"""Graphs on TensorRT, bound to torch's memory on the GPU.

Written against the API of ``tensorrt`` 10.x and ``tensorrt_rtx`` 1.7, and never run on a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ros_vla_accel.engines import tensorrt_build
from ros_vla_accel.engines.capability import check
from ros_vla_accel.engines.errors import EngineError
from ros_vla_accel.engines.manifest import DYNAMIC, EngineManifest

_ELEMENTS = {
    "FLOAT": "float",
    "HALF": "float16",
    "BF16": "bfloat16",
    "UINT8": "uint8",
    "INT64": "int64",
}


class TensorRTSession:
    """``GraphSession`` of one execution context. Runs on torch's current stream, so that what
    torch does before and after needs no waiting."""

    def __init__(self, trt: Any, engine: Any, context: Any, name: str) -> None:
        self._engine, self.context, self._name = engine, context, name
        kinds: dict[Any, dict[str, str]] = {
            trt.TensorIOMode.INPUT: {},
            trt.TensorIOMode.OUTPUT: {},
        }
        for index in range(engine.num_io_tensors):
            tensor = engine.get_tensor_name(index)
            kind = _ELEMENTS[engine.get_tensor_dtype(tensor).name]
            kinds[engine.get_tensor_mode(tensor)][tensor] = kind
        self.inputs, self.outputs = kinds.values()

    def bind(self, name: str, tensor: Tensor) -> None:
        if not tensor.is_cuda:
            raise EngineError(f"'{name}' of '{self._name}' must be on the GPU")
        if name in self.inputs and not self.context.set_input_shape(name, tuple(tensor.shape)):
            raise EngineError(
                f"'{name}' of '{self._name}' cannot be {tuple(tensor.shape)}: "
                f"{tensorrt_build.last_error()}"
            )
        self.context.set_tensor_address(name, tensor.data_ptr())

    def run(self) -> None:
        if not self.context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise EngineError(f"'{self._name}' failed: {tensorrt_build.last_error()}")


class TensorRTEngine:
    """Engines of a folder. Every context is made when it is first asked for, which is before the
    first inference, and all share one scratch buffer: they run one after another on one stream.
    """

    name, device = "tensorrt", "cuda"

    def __init__(self, folder: Path, manifest: EngineManifest, shapes: str = DYNAMIC) -> None:
        self._trt = tensorrt_build.library()
        if tensorrt_build.present_capability() is None:
            raise EngineError("TensorRT needs a GPU to run, and torch finds none here")
        self._target = tensorrt_build.target()
        self._folder, self._manifest, self._shapes = folder, manifest, shapes
        self._runtime = self._trt.Runtime(tensorrt_build.logger())
        self._sessions: dict[Path, TensorRTSession] = {}
        self._scratch = torch.empty(0, dtype=torch.uint8, device="cuda")

    def session(self, precision: str, graph: str) -> TensorRTSession:
        check(precision, self._target.capability)
        artifact = self._manifest.artifact(precision, graph, self._shapes)
        path = tensorrt_build.engine_path(self._folder, artifact, self._target)
        if path not in self._sessions:
            data = tensorrt_build.read_engine(path, self._folder)
            self._sessions[path] = self._load(data, path.name)
        return self._sessions[path]

    def _load(self, data: bytes, name: str) -> TensorRTSession:
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise EngineError(f"'{name}' cannot be loaded: {tensorrt_build.last_error()}")
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = engine.create_execution_context(strategy)
        if context is None:
            raise EngineError(f"'{name}' has no context: {tensorrt_build.last_error()}")
        session = TensorRTSession(self._trt, engine, context, name)
        needed = engine.device_memory_size_v2
        if needed > self._scratch.numel():
            # A larger buffer for all: the old one is not in use between inferences.
            torch.cuda.synchronize()
            self._scratch = torch.empty(needed, dtype=torch.uint8, device="cuda")
        for each in (*self._sessions.values(), session):
            each.context.set_device_memory(self._scratch.data_ptr(), self._scratch.numel())
        return session
