"""The shipped policy, and networks of other sizes in its clothes."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch

from ros_vla_accel.policies.checkpoint import Manifest, load_checkpoint
from ros_vla_accel.policies.config import RANDOM_SIZES
from ros_vla_accel.policies.model import ReferenceVLA

log = logging.getLogger(__name__)

_ASSETS = Path(__file__).resolve().parents[1] / "assets"
SHIPPED = _ASSETS / "reference"
CHECKPOINTS = {"reference": SHIPPED, "diffusion": _ASSETS / "diffusion"}
"""Those that come with the package, by name: the policy of all tasks, and a smaller head of the
same architecture, trained as a diffusion model on drawer-open, to measure caches on."""


def checkpoint_folder(checkpoint: str | Path | None) -> Path:
    """Folder of a checkpoint that is named by its path, or in ``CHECKPOINTS``."""
    name = str(checkpoint or "reference")
    return CHECKPOINTS.get(name, Path(name))


def random_policy(size: str) -> tuple[ReferenceVLA, Manifest]:
    """A network of another size with random weights, in the shipped policy's clothes.

    Raises ValueError for an unknown size.
    """
    if size not in RANDOM_SIZES:
        raise ValueError(f"size '{size}' is unknown; choose from {sorted(RANDOM_SIZES)}")
    _, shipped = load_checkpoint(SHIPPED)
    config = replace(shipped.model, **RANDOM_SIZES[size])
    spec = replace(shipped.spec, name=f"reference-{size}-random-weights", checkpoint_hash="")
    log.warning("policy '%s' has random weights: for time and memory only", spec.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ReferenceVLA(config)
        # They start at zero for training, and no block would matter.
        for layer in model.head.zero_layers():
            torch.nn.init.normal_(layer.weight, std=0.02)
    training = {"command": "none: random weights"}
    manifest = replace(shipped, spec=spec, model=config, training=training)
    return model.eval(), manifest
