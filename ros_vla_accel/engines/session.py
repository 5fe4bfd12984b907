"""One graph, ready to run: what ONNX Runtime and TensorRT have in common here."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class GraphSession(Protocol):
    """Reads its inputs from and writes its outputs to tensors that were bound once.

    Nothing is copied: a bound tensor must stay alive, contiguous and where it is. One thread at a
    time.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    """Name -> element type ("float", "float16", "bfloat16", "uint8", "int64")."""

    def bind(self, name: str, tensor: Tensor) -> None:
        """Sets the storage of an input or output until another is bound."""
        ...

    def run(self) -> None:
        """Raises EngineError when the engine fails."""
        ...


class Engine(Protocol):
    """Where graphs run. Every precision is loaded up front, so that a switch costs nothing."""

    name: str
    device: str

    def session(self, precision: str, graph: str) -> GraphSession:
        """The same object for the same file. Raises EngineError when it cannot be loaded."""
        ...
