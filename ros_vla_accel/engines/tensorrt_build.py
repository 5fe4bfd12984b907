"""Engines of TensorRT from exported graphs, by ``tensorrt`` (10.x) or ``tensorrt_rtx``.

Both have one API. ``tensorrt_rtx`` builds for any of its GPUs on a machine without one;
``tensorrt`` builds for the GPU that is there, with a timing cache, and is what a Jetson has.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ros_vla_accel.engines import capability as gpus
from ros_vla_accel.engines.errors import EngineError
from ros_vla_accel.engines.manifest import (
    DYNAMIC,
    Artifact,
    EngineManifest,
    digest,
    read_verified,
)

log = logging.getLogger(__name__)

LIBRARIES = ("tensorrt", "tensorrt_rtx")
TIMING_CACHE = "timing.cache"


@dataclass(frozen=True)
class Target:
    """What an engine is for: library, its version, and the GPU's compute capability ("8.6")."""

    library: str
    version: str
    capability: str

    @property
    def label(self) -> str:
        return f"sm{self.capability.replace('.', '')}.{self.library}-{self.version}"


@functools.cache
def library() -> Any:
    """``tensorrt`` if it is installed, else ``tensorrt_rtx``. Raises EngineError."""
    problems = []
    for name in LIBRARIES:
        try:
            found = importlib.import_module(name)
        except ImportError as error:
            problems.append(f"{name}: {error}")
            continue
        if int(found.__version__.partition(".")[0]) < 10 and name == "tensorrt":
            problems.append(f"{name} {found.__version__} is too old, 10 is needed")
            continue
        return found
    raise EngineError(
        f"no TensorRT ({'; '.join(problems)}); pip install 'ros_vla_accel[tensorrt]', or on a "
        "Jetson apt install tensorrt"
    )


@functools.cache
def logger() -> Any:
    """TensorRT takes one logger per process; what it says goes to ours, and errors are kept."""
    trt = library()

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(text)
            log.debug("TensorRT: %s", text)

    return Logger()


def last_error() -> str:
    errors = logger().errors
    text = " ".join(errors[-2:])[:500] or "no reason was given"
    errors.clear()
    return text


def present_capability() -> str | None:
    """Of the first GPU; None without one."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    return "{}.{}".format(*torch.cuda.get_device_capability(0))


def target(wanted: str | None = None) -> Target:
    """What to build for: ``wanted``, or the GPU of this machine. Raises EngineError."""
    trt = library()
    name, here = trt.__name__.partition(".")[0], present_capability()
    capability = wanted or here
    if capability is None:
        raise EngineError("there is no GPU here; say what to build for: --compute-capability 8.6")
    gpus.check("fp32", capability)
    if name == "tensorrt" and capability != here:
        raise EngineError(
            f"tensorrt {trt.__version__} builds for the GPU of its machine alone "
            f"({here or 'there is none'}), not for {capability}; build there, or with tensorrt_rtx"
        )
    if name == "tensorrt_rtx" and not hasattr(trt.ComputeCapability, _member(capability)):
        known = sorted(c for c in gpus.CAPABILITIES if hasattr(trt.ComputeCapability, _member(c)))
        raise EngineError(
            f"tensorrt_rtx {trt.__version__} cannot build for {capability}, only for "
            f"{', '.join(known)}; on a Jetson, build with its own tensorrt"
        )
    return Target(name, trt.__version__, capability)


def _member(capability: str) -> str:
    return f"SM{capability.replace('.', '')}"


def engine_path(folder: Path, artifact: Artifact, made_for: Target) -> Path:
    """Named by all that an engine depends on; the graph's file name holds the precision."""
    stem = artifact.file.removesuffix(".onnx")
    return folder / f"{stem}.{artifact.sha256[:12]}.{made_for.label}.engine"


def build_all(
    folder: Path,
    manifest: EngineManifest,
    made_for: Target,
    precisions: Sequence[str],
    max_batch: int = 8,
    shapes: str = DYNAMIC,
    done: Callable[[Path, bool], None] = lambda path, built: None,
) -> list[Path]:
    """Engines of all graphs; those that are there and whole are kept.

    done: called with each file and whether it was built. Raises EngineError.
    """
    for precision in precisions:
        gpus.check(precision, made_for.capability)
    routed = [p for p in precisions if manifest.mixture.get(p) == "routed"]
    if routed:
        raise EngineError(
            "TensorRT engines are built from dense mixtures, whose shapes do not depend on the "
            f"data; '{folder}' has routed ones in {', '.join(routed)}: export with "
            "--mixture dense"
        )
    paths: list[Path] = []
    for precision in precisions:
        for graph in manifest.graphs.get(precision, {}):
            artifact = manifest.artifact(precision, graph, shapes)
            path = engine_path(folder, artifact, made_for)
            if path in paths:
                continue
            missing = not _whole(path)
            if missing:
                model = read_verified(folder, artifact)
                data = build(model, path.name, made_for, folder, manifest.steps, max_batch)
                _write(path, data, made_for)
            paths.append(path)
            done(path, missing)
    return paths


def build(
    model: bytes, name: str, made_for: Target, folder: Path, steps: int, max_batch: int
) -> bytes:
    """One serialized engine. Raises EngineError for an operator or a shape it cannot build."""
    trt = library()
    builder = trt.Builder(logger())
    flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flag)
    parser = trt.OnnxParser(network, logger())
    logger().errors.clear()
    if not parser.parse(model):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        reasons = "; ".join(f"{e.node_operator()} '{e.node_name()}': {e.desc()}" for e in errors)
        raise EngineError(f"TensorRT cannot read '{name}': {reasons[:500]}")
    config = builder.create_builder_config()
    _set_profile(builder, network, config, steps, max_batch)
    if made_for.library == "tensorrt_rtx":
        config.num_compute_capabilities = 1
        member = getattr(trt.ComputeCapability, _member(made_for.capability))
        config.set_compute_capability(member, 0)
        cache = None  # Does nothing there.
    else:
        cache = folder / f"{made_for.label}.{TIMING_CACHE}"
        stored = cache.read_bytes() if cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(stored), ignore_mismatch=False)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise EngineError(f"TensorRT cannot build '{name}': {last_error()}")
    if cache is not None:
        _replace(cache, bytes(config.get_timing_cache().serialize()))
    return bytes(serialized)


def _set_profile(builder: Any, network: Any, config: Any, steps: int, max_batch: int) -> None:
    profile, varies = builder.create_optimization_profile(), False
    # Second-order solvers evaluate the head twice per step.
    largest = {"batch": (1, 1, max_batch), "steps": (1, steps, 2 * steps)}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        sizes = list(tensor.shape)
        if -1 not in sizes:
            continue
        varies = True
        names = [
            "steps" if tensor.name == "times" or (axis == 1 and size == -1) else "batch"
            for axis, size in enumerate(sizes)
        ]
        low, best, high = (
            [largest[n][i] if s == -1 else s for n, s in zip(names, sizes, strict=True)]
            for i in range(3)
        )
        profile.set_shape(tensor.name, low, best, high)
    if varies:
        config.add_optimization_profile(profile)


def _write(path: Path, data: bytes, made_for: Target) -> None:
    """The engine, then the note that vouches for it: an engine without one counts as absent."""
    _replace(path, data)
    note = {**vars(made_for), "sha256": digest(data), "bytes": len(data)}
    _replace(_note(path), json.dumps(note, indent=1).encode())


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _whole(path: Path) -> bool:
    try:
        read_engine(path, path.parent)
    except EngineError:
        return False
    return True


def read_engine(path: Path, folder: Path) -> bytes:
    """Raises EngineError for an engine that is missing, for another GPU or version, or damaged."""
    if not (path.is_file() and _note(path).is_file()):
        graph = path.name.partition(".")[0]
        others = sorted(p.name for p in folder.glob(f"{graph}.*.engine"))
        raise EngineError(
            f"'{path}' is missing; for other GPUs, versions or graphs there is "
            f"{', '.join(others) or 'none'}; build it here with `ros-vla-accel export "
            f"--engine tensorrt --build-only --out {folder}`"
        )
    data = path.read_bytes()
    try:
        expected = json.loads(_note(path).read_text())["sha256"]
    except (ValueError, KeyError) as error:
        raise EngineError(f"'{_note(path)}' is damaged ({error!r}); build again") from error
    if digest(data) != expected:
        raise EngineError(f"'{path}' is damaged: its SHA-256 is not the noted one; build it again")
    return data
