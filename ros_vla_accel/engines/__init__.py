"""The reference policy on ONNX Runtime and TensorRT, one engine per precision.

``EngineChoice`` is what nodes and the cloud worker load a policy with; ``exported`` is a factory
for everything else that takes a policy by name. Torch and engines are imported when asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ros_vla_accel.contracts import Policy
from ros_vla_accel.engines.errors import EngineError
from ros_vla_accel.policies.loader import PolicyLoadError, load_policy, policy_arguments

if TYPE_CHECKING:
    from ros_vla_accel.engines.policy import ExportedPolicy

__all__ = ["ENGINES", "EngineChoice", "EngineError", "exported"]

log = logging.getLogger(__name__)

ENGINES = ("torch", "onnxruntime", "tensorrt")
REFERENCE = "ros_vla_accel.policies:reference"
_OWN = ("precisions", "shapes")
"""Policy arguments that only engines take."""
_BOTH = ("steps", "source", "solver", "warm_start")
_TORCH_ONLY = ("checkpoint", "device", "dtype", "threads", "quantize")
"""Policy arguments that say how torch runs it, or which checkpoint is meant."""


@dataclass(frozen=True)
class EngineChoice:
    """What runs a policy: the parameters ``engine``, ``engine_dir`` and ``engine_fallback``.

    directory: what ``ros-vla-accel export`` wrote, of the checkpoint that the policy's name and
    arguments mean. fallback: run in torch, with a warning, when the engine cannot be had.
    """

    engine: str = "torch"
    directory: str | Path = ""
    fallback: bool = False

    def load(
        self,
        name: str,
        args: Mapping[str, Any] | str | Path | None = None,
        threads: int | None = None,
    ) -> Policy:
        """The policy; with ``torch`` that of ``load_policy(name, args)``.

        threads: of the engine. Raises PolicyLoadError.
        """
        if self.engine not in ENGINES:
            raise PolicyLoadError(
                f"engine '{self.engine}' is unknown; choose from {', '.join(ENGINES)}"
            )
        if self.engine == "torch":
            return load_policy(name, args)
        arguments = policy_arguments(args)
        try:
            return _engine_policy(name, arguments, self.engine, self.directory, threads)
        except EngineError as error:
            if not self.fallback:
                raise PolicyLoadError(
                    f"engine {self.engine}: {error}. To run in torch instead: engine_fallback"
                ) from error
            log.warning("engine %s: %s. Running in torch instead", self.engine, error)
        return load_policy(name, {k: v for k, v in arguments.items() if k not in _OWN})


def _engine_policy(
    name: str, arguments: dict[str, Any], engine: str, engine_dir: str | Path, threads: int | None
) -> ExportedPolicy:
    if name != REFERENCE:
        raise EngineError(f"only {REFERENCE} can be exported, not '{name}'; set engine: torch")
    unknown = sorted(set(arguments) - {*_OWN, *_BOTH, *_TORCH_ONLY})
    if unknown:
        raise EngineError(f"policy arguments {unknown} cannot be used on an engine")
    if not engine_dir:
        raise EngineError("engine_dir is empty; name the folder that `ros-vla-accel export` wrote")
    given = {k: arguments[k] for k in (*_OWN, *_BOTH) if k in arguments}
    policy = exported(engine_dir, engine, threads=threads or 1, **given)
    from ros_vla_accel.policies.checkpoint import CheckpointError, read_identity
    from ros_vla_accel.policies.random_policy import checkpoint_folder

    checkpoint = checkpoint_folder(arguments.get("checkpoint"))
    try:
        identity = read_identity(checkpoint)
    except CheckpointError as error:
        raise EngineError(str(error)) from error
    if identity != policy.spec.identity:
        raise EngineError(
            f"engines in '{engine_dir}' are of checkpoint {policy.spec.identity[:12]}..., not of "
            f"'{checkpoint}' ({identity[:12]}...); export that one"
        )
    return policy


def exported(
    engine_dir: str | Path,
    engine: str = "onnxruntime",
    precisions: Sequence[str] | None = None,
    steps: int | None = None,
    threads: int = 1,
    source: str = "edge",
    shapes: str = "dynamic",
    solver: str | None = None,
    warm_start: float = 0.0,
) -> ExportedPolicy:
    """Factory of the exported policy, ``ros_vla_accel.engines:exported``; no torch weights, no
    checkpoint needed. See ``policy.ExportedPolicy``. Raises EngineError."""
    from ros_vla_accel.engines.manifest import EngineManifest

    folder, shapes = Path(engine_dir), str(shapes)
    if shapes not in ("dynamic", "1"):
        raise EngineError(f"shapes '{shapes}' must be dynamic or 1")
    manifest = EngineManifest.load(folder)
    try:
        from ros_vla_accel.engines.policy import ExportedPolicy

        if engine == "onnxruntime":
            from ros_vla_accel.engines.onnxruntime_engine import OnnxRuntimeEngine

            made: Any = OnnxRuntimeEngine(folder, manifest, threads, shapes)
        elif engine == "tensorrt":
            from ros_vla_accel.engines.tensorrt_engine import TensorRTEngine

            made = TensorRTEngine(folder, manifest)
        else:
            raise EngineError(f"engine '{engine}' is unknown; choose onnxruntime or tensorrt")
    except ModuleNotFoundError as error:
        raise EngineError(
            f"'{error.name}' is not installed; pip install 'ros_vla_accel"
            f"[{'onnx' if engine == 'onnxruntime' else 'tensorrt'}]'"
        ) from error
    fixed = shapes == "1"
    return ExportedPolicy(manifest, made, precisions, steps, source, fixed, solver, warm_start)
