"""Starts the processes of a bring-up without ROS 2's launch, and ends every one of them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from ros_vla_accel.nodes.bringup import Process

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""How long a process may take to end after SIGINT, and again after SIGTERM."""


class Supervisor:
    """A context manager: leaving it ends what it started, SIGINT first, SIGKILL last.

    log_dir: where each process writes NAME.log; None: onto this terminal.
    """

    def __init__(self, log_dir: Path | None = None, environment: dict[str, str] | None = None):
        self._log_dir = log_dir
        self._environment = {**os.environ, **(environment or {})}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: list[IO[bytes]] = []

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    def start(self, process: Process) -> int:
        """Starts a process; returns its id. The name may be reused once the old one has ended."""
        module = "ros_vla_accel.cli" if process.command else "ros_vla_accel.nodes"
        arguments = process.command or (process.name, *process.ros_arguments())
        output = None
        if self._log_dir is not None:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            output = (self._log_dir / f"{process.name}.log").open("ab")
            self._logs.append(output)
        self._running[process.name] = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            env=self._environment,
            # Ctrl-C reaches a whole terminal group; these get theirs from stop_all, in order.
            start_new_session=True,
        )
        return self._running[process.name].pid

    def ended(self) -> dict[str, int]:
        """Name -> exit status of the processes that have ended by themselves."""
        statuses = {name: process.poll() for name, process in self._running.items()}
        return {name: status for name, status in statuses.items() if status is not None}

    def kill(self, name: str) -> None:
        """Ends a process without notice, as a crash would."""
        self._running[name].kill()
        self._running[name].wait()

    def stop_all(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            alive = [process for process in self._running.values() if process.poll() is None]
            for process in alive:
                process.send_signal(number)
            _wait(alive, time.monotonic() + GRACE_S)
        for output in self._logs:
            output.close()
        self._logs.clear()


def _wait(processes: Iterable[subprocess.Popen[bytes]], until_s: float) -> None:
    for process in processes:
        try:
            process.wait(max(until_s - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            log.warning("process %d has not ended yet", process.pid)
