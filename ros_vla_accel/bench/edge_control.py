"""The processor time of the composed process edge_control, which moves the arm."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.progress import track

from ros_vla_accel.bench.processes import worker
from ros_vla_accel.bench.ros import BenchError, finish, start

RATE_HZ = 500.0
_SETTLE_S = 4.0


def measure(seconds: float, label: str = "") -> dict[str, Any]:
    """One run: the three light nodes in their process, the joints of the simulated Sawyer at
    500 Hz and a chunk every 0.4 s from another, and a worker, whose link they watch. Raises
    BenchError if the arm did not move.

    ``core_share``: processor time over elapsed time after start-up, of one core.
    """
    namespace = f"bench_edge_control_{os.getpid()}"
    arguments = ["--ros-args", "-r", f"__ns:=/{namespace}"]
    with tempfile.TemporaryDirectory() as folder:
        described = _describe(Path(folder) / "arm.urdf")
        rates = ["-p", f"joint_rate_hz:={RATE_HZ}", "-p", f"description:={described}"]
        cloud = worker("noop", "--insecure")
        link = ("-p", f"cloud_endpoint:={cloud.address}", "-p", "cloud_security:=insecure")
        control = start("ros_vla_accel.nodes", "edge_control", *arguments, *link)
        arm = start("ros_vla_accel.nodes.traffic", "arm", *arguments, *rates)
        try:
            time.sleep(_SETTLE_S)
            used_s, since_s = cpu_s(control.pid), time.monotonic()
            for _ in track(range(round(10 * seconds)), label, transient=True):
                time.sleep(0.1)
            share = (cpu_s(control.pid) - used_s) / (time.monotonic() - since_s)
            report = finish(arm)
        finally:
            for process in (arm, control):
                process.kill()
                process.wait()
            cloud.close()
    heard = report["heard"]
    ticks, playing = heard.get("executor_state", 0), heard.get("playing", 0)
    if playing < 10 * seconds or not heard.get("precision"):
        raise BenchError(f"edge_control played {playing} of {ticks} ticks: nothing was measured")
    return {
        "core_share": share,
        "motion": "fk" if described else "joint",
        "middleware": report["middleware"],
        "ticks": ticks,
        "starved_ticks": heard["starved"],
        "joint_states": report["sent"]["joints"],
    }


def _describe(path: Path) -> str:
    """Writes the arm's URDF; an empty name where the simulator is not installed."""
    try:
        from ros_vla_accel.sim.urdf import sawyer_urdf
    except ImportError:
        return ""
    path.write_text(sawyer_urdf())
    return str(path)


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
