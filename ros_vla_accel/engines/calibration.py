"""Observations that static scales are taken from, and what the graphs see while they run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ros_vla_accel.contracts import InferenceRequest, Observation, PolicySpec
from ros_vla_accel.engines.errors import EngineError
from ros_vla_accel.engines.manifest import digest
from ros_vla_accel.engines.stages import GRAPHS, flat, signature
from ros_vla_accel.policies.head import Conditioning
from ros_vla_accel.policies.quantized import packable
from ros_vla_accel.policies.reference_policy import ReferencePolicy

Feeds = dict[str, list[dict[str, Tensor]]]
"""Graph -> the inputs of each of its calls."""


def save_observations(path: Path, observations: Sequence[Observation]) -> None:
    """Writes an .npz of arrays ``image_<camera>`` (N, H, W, 3), ``state`` and ``instruction``."""
    arrays = {
        f"image_{name}": np.stack([o.images[name] for o in observations])
        for name in observations[0].images
    }
    arrays["state"] = np.stack([o.state for o in observations])
    arrays["instruction"] = np.array([o.instruction for o in observations])
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **arrays)
    partial.replace(path)


def load_observations(path: Path, spec: PolicySpec) -> list[Observation]:
    """Raises EngineError for a file that is missing, or not what ``save_observations`` writes."""
    if not path.is_file():
        raise EngineError(
            f"calibration '{path}' is missing; record one with `ros-vla-accel export "
            "--record-calibration`, or write the .npz yourself (docs/engines.md)"
        )
    try:
        with np.load(path, allow_pickle=False) as data:
            images = {c.name: data[f"image_{c.name}"] for c in spec.cameras}
            state, instruction = data["state"].astype(np.float32), data["instruction"]
    except (KeyError, ValueError, OSError) as error:
        raise EngineError(f"calibration '{path}' cannot be used: {error}") from error
    if not len(state) or any(len(x) != len(state) for x in (*images.values(), instruction)):
        raise EngineError(f"calibration '{path}' needs as many images as states, at least one")
    return [
        Observation({n: x[i] for n, x in images.items()}, state[i], str(instruction[i]), i)
        for i in range(len(state))
    ]


@dataclass
class Recorded:
    """feeds: inputs of the graphs. largest: packed layer -> largest magnitude of its input, per
    denoising step (S,) in the head's step and () elsewhere."""

    feeds: Feeds
    largest: dict[str, Tensor] = field(default_factory=dict)
    source: dict[str, object] = field(default_factory=dict)


def record(policy: ReferencePolicy, observations: Sequence[Observation]) -> Recorded:
    """Runs the policy in torch and keeps what every graph would be given.

    policy: with a model from ``stages.traceable_copy``, in float32.
    """
    model, found = policy.model, Recorded({graph: [] for graph in GRAPHS})
    index, held = 0, {}

    def on_vision(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.feeds["vision"].append({"images": args[0]})

    def on_backbone(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        names = ("vision", "state", "words")
        found.feeds["backbone"].append(dict(zip(names, args, strict=True)))

    def on_step(module: nn.Module, args: tuple[Tensor, Conditioning]) -> None:
        nonlocal index
        found.feeds["step"].append({"noisy": args[0], "index": torch.tensor(index), **held})
        index += 1

    condition = model.head.condition

    def on_condition(context: Tensor, time: Tensor) -> Conditioning:
        nonlocal held
        found.feeds["condition"].append({"context": context, "times": time[0].float()})
        conditioning = condition(context, time)
        names = signature("condition", model.config).outputs
        held = dict(zip(names, flat(conditioning), strict=True))
        return conditioning

    with torch.inference_mode(), _ranges(model, lambda: index - 1, policy.steps) as largest:
        hooks = [
            model.vision.register_forward_pre_hook(on_vision),
            model.backbone.register_forward_pre_hook(on_backbone),
            model.head.register_forward_pre_hook(on_step),
        ]
        model.head.condition = on_condition  # type: ignore[method-assign]
        try:
            for seed, observation in enumerate(observations):
                index = 0
                policy.infer([InferenceRequest(observation, seed, 0, seed)])
        finally:
            del model.head.condition
            for hook in hooks:
                hook.remove()
    found.largest = _filled(largest)
    pixels = b"".join(
        o.state.tobytes() + b"".join(o.images[c.name].tobytes() for c in policy.spec.cameras)
        for o in observations
    )
    found.source = {"observations": len(observations), "sha256": digest(pixels)}
    return found


@contextmanager
def _ranges(model: nn.Module, step: Callable[[], int], steps: int) -> Iterator[dict[str, Tensor]]:
    """Largest input magnitude of every packed layer while it is open: per denoising step (S,) of
    those within a step, () of the others."""
    largest: dict[str, Tensor] = {}
    hooks = []
    for name, layer in model.named_modules():
        if not packable(layer, name):
            continue

        def see(module: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
            at = step()
            table = largest.setdefault(name, torch.zeros(() if at < 0 else steps))
            if args[0].numel():  # An expert may have got no rows.
                entry = table if at < 0 else table[at]
                entry.copy_(torch.maximum(entry, args[0].abs().max().float()))

        hooks.append(layer.register_forward_pre_hook(see))
    try:
        yield largest
    finally:
        for hook in hooks:
            hook.remove()


def _filled(largest: dict[str, Tensor]) -> dict[str, Tensor]:
    """Where an expert was given nothing at some step, it takes what the others were given."""
    groups: dict[str, Tensor] = {}
    for name, table in largest.items():
        group = re.sub(r"experts\.\d+", "experts", name)
        groups[group] = torch.maximum(groups.get(group, table), table)
    return {
        name: torch.where(table > 0, table, groups[re.sub(r"experts\.\d+", "experts", name)])
        for name, table in largest.items()
    }
