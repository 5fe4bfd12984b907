"""Servers of benchmarks as processes of their own, which end with their benchmark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path


class ServerError(RuntimeError):
    """A server did not come up; the text holds what it said."""


class Server:
    """``python -m MODULE ARGUMENTS``; ``address`` is what it printed after ``ready on``."""

    def __init__(self, module: str, *arguments: str):
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        said = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said.append(line.rstrip())
            if "ready on" in line:
                self.address = line.partition("ready on ")[2].split()[0]
                # What it says later is read, or it would stand still once the pipe is full.
                threading.Thread(target=self._process.stdout.read, daemon=True).start()
                return
        raise ServerError(f"{module} {' '.join(arguments)} ended: {' | '.join(said[-5:])}")

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def worker(policy: str, *arguments: str) -> Server:
    """``ros-vla-accel cloud`` with a policy of ``emulated_policy.py``, on loopback."""
    name = f"ros_vla_accel.bench.emulated_policy:{policy}"
    command = ["cloud", "--bind", "tcp://127.0.0.1:*", "--policy", name, "--threads", "1"]
    return Server("ros_vla_accel.cli", *command, *arguments)
