"""The compiled kernels: a plain C library beside this file, built by pip or colcon if they can."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor

PATHS = ("plain", "avx2", "avx512", "amx")
"""Names of the paths, in the order of csrc/w4ax.h."""
TYPES = {torch.float32: 0, torch.bfloat16: 1}
"""Types of activations that the kernels read and write."""
_ERRORS = {-1: "the kernel does not run on this processor", -2: "out of memory"}


class LayerStruct(ctypes.Structure):
    """``w4ax_layer`` of csrc/w4ax.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("outputs", "inputs", "group")),
        *(
            (name, ctypes.c_void_p)
            for name in ("packed", "group_scale", "channel_scale", "row_sum", "bias")
        ),
    )


class Library:
    """Loaded kernels. ``paths``: those that this processor runs. ``threaded``: whether they use
    torch's own threads; with another OpenMP, or none, the calling thread works alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        library = ctypes.CDLL(str(path))
        self._linear = library.w4ax_linear
        self._linear.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64]
        self._linear.argtypes += [ctypes.c_int] * 4 + [ctypes.c_void_p]
        found = library.w4ax_paths()
        self.paths = tuple(name for i, name in enumerate(PATHS) if found >> i & 1)
        parallel = _parallel()
        self.threaded = parallel is not None
        library.w4ax_set_parallel.argtypes = [ctypes.c_void_p]
        library.w4ax_set_parallel(parallel)

    def linear(self, layer: LayerStruct, x: Tensor, outputs: int, bits: int, path: str) -> Tensor:
        """x (M, K) float32 or bfloat16, contiguous -> (M, N) of its type."""
        rows = x.shape[0]
        out = x.new_empty((rows, outputs))
        self._call(layer, x, out, rows, bits, path, None)
        return out

    def accumulate(
        self, layer: LayerStruct, x: Tensor, outputs: int, bits: int, path: str
    ) -> tuple[Tensor, Tensor]:
        """The integer sums (M, N) int32 and the activation scales (M,) behind ``linear``."""
        rows = x.shape[0]
        out, scale = torch.empty((rows, outputs), dtype=torch.int32), torch.empty(rows)
        self._call(layer, x, out, rows, bits, path, scale.data_ptr())
        return out, scale

    def _call(
        self,
        layer: LayerStruct,
        x: Tensor,
        out: Tensor,
        rows: int,
        bits: int,
        path: str,
        scale: int | None,
    ) -> None:
        if not rows:
            return
        status = self._linear(
            ctypes.addressof(layer),
            x.data_ptr(),
            out.data_ptr(),
            rows,
            TYPES[x.dtype],
            bits,
            PATHS.index(path),
            torch.get_num_threads(),
            scale,
        )
        if status:
            raise RuntimeError(f"kernel '{path}' at {bits} bits: {_ERRORS[status]}")


@functools.cache
def library() -> Library | None:
    """The kernels, or None when none were built (``why_missing`` says more)."""
    for path in sorted(Path(__file__).parent.glob("_w4ax*.so")):
        try:
            return Library(path)
        except (OSError, AttributeError):  # built for another system or an older version
            continue
    return None


def why_missing() -> str:
    return (
        "no compiled INT4 kernels beside the package: there was no C compiler when it was "
        "installed; install gcc and reinstall ros_vla_accel"
    )


def _parallel() -> int | None:
    """Address of GOMP_parallel in the OpenMP library that torch has already loaded.

    A second OpenMP runtime would bring its own threads, which fight torch's for the cores.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    for line in maps.read_text().splitlines():
        name = line.rpartition(" ")[2]
        if any(known in name for known in ("libgomp", "libiomp5", "libomp.so")):
            try:
                found = ctypes.CDLL(name).GOMP_parallel
            except (OSError, AttributeError):
                continue
            return ctypes.cast(found, ctypes.c_void_p).value
    return None
