"""Benchmarks: ``ros-vla-accel bench NAME [--quick] [--json PATH]``, one file each."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = {
    "engines": "ONNX Runtime in every precision against torch: time of an inference, and memory",
    "kernels": "INT4 linear layers against BF16 and FP32, per shape and rows",
    "load": "1 to 128 robots on one cloud worker, with and without batching",
    "memory": "a 7B decoder in INT4: peak memory, and time against BF16",
    "moeca": "caches of the action head: time against error, beside fewer steps and solvers",
    "partition": "RAPID in closed loop against edge only, cloud only and uncertainty",
    "policy": "time and memory of one inference of the reference policy, and of a large one",
    "quantization": "success and time of dynamic and static precisions in closed loop, and at 7 B",
    "replay": "speed and memory of replay, size and time of its report",
    "ros": "messages between two processes: joint states and two cameras",
    "transport": "round trip to the cloud worker against bare ZeroMQ and peers",
    "trigger": "cost and exactness of RAPID's triggers per joint sample",
}
"""Name of the module with ``main(argv) -> int`` -> what it measures."""


def main(argv: list[str]) -> int:
    """Runs one benchmark; its exit status is 0 only when it was measured."""
    if not argv or argv[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name:<13}{text}" for name, text in BENCHMARKS.items())
        print(f"usage: ros-vla-accel bench NAME [--help] ...\n\n{listed}")
        return 0 if argv else 2
    name, *rest = argv
    if name not in BENCHMARKS:
        print(f"'{name}' is no benchmark; known: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"{__name__}.{name}").main(rest))
