"""The activation width of a model: asked for at any time, taken at the start of a pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ros_vla_accel.quantization.config import WIDTHS


def check_width(bits: int) -> int:
    if bits not in WIDTHS:
        raise ValueError(f"activation bits {bits!r} are unknown; choose from {WIDTHS}")
    return bits


class _Pass(threading.local):
    depth = 0
    bits = 16


class ActivationBits:
    """What all quantized layers of one model read their width from.

    ``request`` is one assignment: no lock, no work on any layer. A pass begins when the outermost
    of the hooked modules is called, or with ``inference``; the width stays until it ends, however
    often another is requested meanwhile. Threads have passes of their own.
    """

    def __init__(self, bits: int = 16) -> None:
        self._requested = check_width(bits)
        self._pass = _Pass()

    def __reduce__(self) -> tuple[Any, ...]:
        return ActivationBits, (self._requested,)  # A copied model is in no pass.

    @property
    def requested(self) -> int:
        """Width of the next pass."""
        return self._requested

    def request(self, bits: int) -> None:
        """Sets the width of passes that begin from now on. ValueError unless 2, 4, 8 or 16."""
        self._requested = check_width(bits)

    @property
    def current(self) -> int:
        """Width of this thread's pass; outside of one, what the next would take."""
        return self._pass.bits if self._pass.depth else self._requested

    @contextmanager
    def inference(self, bits: int | None = None) -> Iterator[int]:
        """One pass over several calls; ``bits`` for this pass only. Inside a pass, no effect."""
        if bits is not None:
            check_width(bits)
        self._enter(bits)
        try:
            yield self._pass.bits
        finally:
            self._leave()

    def _enter(self, bits: int | None) -> None:
        if not self._pass.depth:
            self._pass.bits = self._requested if bits is None else bits
        self._pass.depth += 1

    def _leave(self) -> None:
        self._pass.depth -= 1

    def _before(self, module: Any, args: Any) -> None:
        self._enter(None)

    def _after(self, module: Any, args: Any, output: Any) -> None:
        self._leave()
