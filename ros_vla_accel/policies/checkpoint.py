"""Checkpoints without pickle: BF16 safetensors and a JSON manifest that vouches for them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from ros_vla_accel.contracts import CameraSpec, PolicySpec
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.model import ReferenceVLA
from ros_vla_accel.policies.normalization import Normalization
from ros_vla_accel.policies.text import WordTokenizer

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or not what its manifest says."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is: everything but the weights.

    training: command, steps and whatever else says how it came about.
    """

    spec: PolicySpec
    model: ModelConfig
    normalization: Normalization
    vocabulary: tuple[str, ...]
    training: dict[str, Any]

    def tokenizer(self) -> WordTokenizer:
        return WordTokenizer(self.vocabulary, self.model.words)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_checkpoint(folder: Path, model: nn.Module, manifest: Manifest) -> str:
    """Writes weights (BF16) and manifest into ``folder``; returns the weights' SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(tensors))
    digest = sha256(folder / WEIGHTS)
    content = {
        "format": FORMAT,
        "spec": {k: v for k, v in asdict(manifest.spec).items() if k != "checkpoint_hash"},
        "model": manifest.model.to_dict(),
        "normalization": manifest.normalization.to_dict(),
        "vocabulary": list(manifest.vocabulary),
        "training": manifest.training,
        "weights": {"file": WEIGHTS, "dtype": "bfloat16", "sha256": digest},
    }
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n")
    return digest


def _spec(values: dict[str, Any], digest: str) -> PolicySpec:
    cameras = tuple(CameraSpec(**camera) for camera in values["cameras"])
    lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list) and k != "cameras"}
    return PolicySpec(**{**values, **lists, "cameras": cameras, "checkpoint_hash": digest})


def load_manifest(folder: Path) -> Manifest:
    """Reads a manifest and checks the weights against it. Raises CheckpointError."""
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"no checkpoint in '{folder}': {MANIFEST} is missing")
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"'{path}' has format {content['format']}, this version reads format {FORMAT}"
            )
        weights = folder / content["weights"]["file"]
        expected = content["weights"]["sha256"]
        if not weights.is_file():
            raise CheckpointError(f"'{path}' names '{weights.name}', which is missing beside it")
        found = sha256(weights)
        if found != expected:
            raise CheckpointError(
                f"'{weights}' has SHA-256 {found[:12]}..., its manifest says {expected[:12]}...: "
                "the file is damaged or belongs to another manifest; copy both again"
            )
        return Manifest(
            _spec(content["spec"], found),
            ModelConfig.from_dict(content["model"]),
            Normalization.from_dict(content["normalization"]),
            tuple(content["vocabulary"]),
            content["training"],
        )
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{path}' is not a valid manifest: {error!r}") from error


def load_checkpoint(folder: Path) -> tuple[ReferenceVLA, Manifest]:
    """The model (float32, CPU, eval mode) and its manifest. Raises CheckpointError."""
    manifest = load_manifest(folder)
    model = ReferenceVLA(manifest.model)
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(f"the weights in '{folder}' do not fit: {error}") from error
    return model.eval(), manifest
