"""``ros-vla-accel doctor``: what is installed, what is active, and what falls back and why."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from ros_vla_accel import middleware
from ros_vla_accel.cloud.keys import ROLES, KeyFileError, KeyFolder

_PACKAGES = {
    "core": ("numpy", "pyzmq", "msgpack", "opencv-python-headless", "rosbags", "pyyaml", "rich"),
    "policy": ("torch", "safetensors"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "cloud": ("prometheus-client",),
    "ray": ("ray",),
    "standalone": ("cyclonedds",),
    "sim": ("mujoco", "metaworld"),
    "fk": ("pin",),
    "train": ("matplotlib", "pyarrow"),
    "report": ("plotly",),
    "view": ("foxglove-sdk",),
}
_MODULES = {
    "opencv-python-headless": "cv2",
    "pyyaml": "yaml",
    "pyzmq": "zmq",
    "prometheus-client": "prometheus_client",
}
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "asimddp")


def main(argv: Sequence[str]) -> int:
    """Exit status 1 when a core package is missing or the middleware cannot be used."""
    parser = argparse.ArgumentParser(prog="ros-vla-accel doctor", description=__doc__)
    parser.add_argument("--json", metavar="PATH", help="write the findings here as well")
    options = parser.parse_args(argv)
    findings = [*_machine(), *_packages(), *_middleware(), *_keys(), *_policy(), *_simulator()]
    table = Table(title="ros-vla-accel doctor", show_header=False)
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    colours = {"ok": "green", "note": "yellow", "missing": "red"}
    for area, name, level, text in findings:
        table.add_row(area, name, f"[{colours[level]}]{level}[/]", text)
    Console().print(table)
    if options.json:
        keys = ("area", "name", "level", "text")
        rows = [dict(zip(keys, finding, strict=True)) for finding in findings]
        Path(options.json).write_text(json.dumps({"name": "doctor", "rows": rows}, indent=2))
    return 1 if any(level == "missing" for _, _, level, _ in findings) else 0


Finding = tuple[str, str, str, str]
"""Area, name, level ("ok", "note" or "missing") and text."""


def _machine() -> list[Finding]:
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.partition(":")[2].split())
                break
    found = " ".join(flag for flag in _CPU_FLAGS if flag in flags) or "none of the SIMD sets known"
    return [
        ("machine", "python", "ok", f"{platform.python_version()} on {platform.machine()}"),
        ("machine", "cpu", "ok", f"{len(os.sched_getaffinity(0))} cores; {found}"),
    ]


def _packages() -> list[Finding]:
    findings = []
    for extra, names in _PACKAGES.items():
        for name in names:
            try:
                findings.append((extra, name, "ok", importlib.metadata.version(name)))
            except importlib.metadata.PackageNotFoundError:
                findings.append(_missing(extra, name))
    return findings


def _missing(extra: str, name: str) -> Finding:
    # ROS installs some of them as Debian packages, which carry other names.
    module = _MODULES.get(name, name)
    if importlib.util.find_spec(module) is not None:
        return (extra, name, "ok", "found, not from pip")
    if extra == "core":
        return (extra, name, "missing", f"pip install '{name}'")
    return (extra, name, "note", f"not installed; pip install 'ros_vla_accel[{extra}]'")


def _middleware() -> list[Finding]:
    try:
        chosen = middleware.install()
    except middleware.MiddlewareError as error:
        return [("middleware", "choice", "missing", str(error))]
    distro = os.environ.get("ROS_DISTRO", "no ROS 2 sourced")
    findings: list[Finding] = [
        ("middleware", "active", "ok", f"{chosen} ({distro})"),
        ("middleware", "domain", "ok", os.environ.get("ROS_DOMAIN_ID", "0 (ROS_DOMAIN_ID unset)")),
    ]
    if chosen == "standalone":
        findings.append(
            (
                "middleware",
                "reach",
                "note",
                "real ROS 2 on this host needs ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST, and for "
                "ros2 param and lifecycle RMW_IMPLEMENTATION=rmw_cyclonedds_cpp",
            )
        )
    return findings


def _policy() -> list[Finding]:
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    where = f"CUDA {torch.version.cuda}" if torch.cuda.is_available() else "CPU"
    return [
        ("policy", "torch runs on", "ok", f"{where}, {torch.get_num_threads()} threads"),
        (
            "policy",
            "activation widths",
            "note",
            "16 bits only by default; the policy argument `quantize: w4ax` runs the reference "
            "policy at the commanded 2, 4, 8 or 16",
        ),
        *_kernels(),
        *_engines(),
    ]


def _engines() -> list[Finding]:
    from ros_vla_accel.engines.report import engines

    return [
        ("engines", name, "ok" if usable else "note", text) for name, usable, text in engines()
    ]


def _kernels() -> list[Finding]:
    from ros_vla_accel.quantization import kernels, native

    loaded = native.library()
    if loaded is None:
        return [("policy", "INT4 kernels", "note", f"torch's own, slower: {native.why_missing()}")]
    table = kernels.table("cpu")
    used = [
        f"{bits} bits: {' then '.join(kernel.name for _, kernel in table[bits])}"
        for bits in (8, 16)
    ]
    why = {kernel.fallback for bits in (8, 16) for _, kernel in table[bits]} - {""}
    text = "; ".join([f"compiled for {', '.join(loaded.paths)}", *used, *sorted(why)])
    return [("policy", "INT4 kernels", "note" if why else "ok", text)]


def _keys() -> list[Finding]:
    keys = KeyFolder()
    findings: list[Finding] = []
    for role in ROLES:
        path = keys.path / f"{role}.key"
        if path.exists():
            try:
                keys.pair(role)
                findings.append(("cloud", f"{role}'s key", "ok", str(path)))
            except KeyFileError as error:
                findings.append(("cloud", f"{role}'s key", "note", str(error)))
    if not findings:
        hint = f"none in {keys.path}; `ros-vla-accel keys --help` (the demo makes its own)"
        return [("cloud", "keys", "note", hint)]
    return findings


def _simulator() -> list[Finding]:
    if importlib.util.find_spec("mujoco") is None:
        return []
    try:
        from ros_vla_accel.sim.env import SawyerEnv

        env = SawyerEnv("drawer-open", cameras=("corner2",))
        image = env.render("corner2")
        env.close()
    except Exception as error:  # Drivers fail in as many ways as there are drivers.
        return [("sim", "rendering", "note", f"off-screen rendering failed: {error}")]
    lit = "ok" if np.ptp(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) > 10 else "note"
    backend = os.environ.get("MUJOCO_GL", "default")
    return [("sim", "rendering", lit, f"off-screen by {backend}")]
