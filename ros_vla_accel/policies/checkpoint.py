"""Checkpoints without pickle: BF16 safetensors and a JSON manifest that vouches for them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
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

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without what is found anew at loading: hash and precision."""
        return {
            "spec": {
                k: v
                for k, v in asdict(self.spec).items()
                if k not in ("checkpoint_hash", "precision")
            },
            "model": self.model.to_dict(),
            "normalization": self.normalization.to_dict(),
            "vocabulary": list(self.vocabulary),
            "training": self.training,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Manifest:
        """The inverse, other keys ignored. Raises KeyError, TypeError or ValueError."""
        return cls(
            _spec(values["spec"]),
            ModelConfig.from_dict(values["model"]),
            Normalization.from_dict(values["normalization"]),
            tuple(values["vocabulary"]),
            values["training"],
        )


def identity(manifest: Manifest, weights_digest: str) -> str:
    """SHA-256 over everything that decides what the policy answers, not the weights alone.

    Two policies of the same weights that scale, name or tokenize otherwise are different ones.
    """
    spec = asdict(manifest.spec)
    for name in ("name", "checkpoint_hash", "stages", "widths", "precision"):
        del spec[name]
    content = {
        "spec": spec,
        "model": manifest.model.to_dict(),
        "normalization": manifest.normalization.to_dict(),
        "vocabulary": manifest.vocabulary,
        "weights": weights_digest,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def save_checkpoint(folder: Path, model: nn.Module, manifest: Manifest) -> str:
    """Writes weights (BF16) and manifest into ``folder``; returns the policy's ``identity``.

    Both files are whole before either takes its name. A process killed between the two renames
    leaves a pair that the loader refuses; saving again puts it right.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    weights = safetensors.torch.save(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    content = {
        "format": FORMAT,
        **manifest.to_dict(),
        "weights": {"file": WEIGHTS, "dtype": "bfloat16", "sha256": digest},
    }
    text = json.dumps(content, indent=1) + "\n"
    names = (WEIGHTS, MANIFEST)
    for name, data in zip(names, (weights, text.encode()), strict=True):
        (folder / f"{name}.partial").write_bytes(data)
    for name in names:
        (folder / f"{name}.partial").replace(folder / name)
    return identity(manifest, digest)


def _spec(values: dict[str, Any]) -> PolicySpec:
    cameras = tuple(CameraSpec(**camera) for camera in values["cameras"])
    lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list) and k != "cameras"}
    return PolicySpec(**{**values, **lists, "cameras": cameras})


def _read(folder: Path) -> tuple[Manifest, bytes]:
    """A manifest, and the weights' file that it vouches for: what was hashed is what is used."""
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"no checkpoint in '{folder}': {MANIFEST} is missing")
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"'{path}' has format {content['format']}, this version reads format {FORMAT}"
            )
        name, expected = content["weights"]["file"], content["weights"]["sha256"]
        if name != WEIGHTS:
            raise CheckpointError(f"'{path}' names the weights {name!r}; it must be '{WEIGHTS}'")
        weights = folder / WEIGHTS
        if not weights.is_file():
            raise CheckpointError(f"'{path}' names '{WEIGHTS}', which is missing beside it")
        data = weights.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise CheckpointError(
                f"'{weights}' has SHA-256 {found[:12]}..., its manifest says {expected[:12]}...: "
                "the file is damaged or belongs to another manifest; copy both again"
            )
        manifest = Manifest.from_dict(content)
        spec = replace(manifest.spec, checkpoint_hash=identity(manifest, found))
        return replace(manifest, spec=spec), data
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{path}' is not a valid manifest: {error!r}") from error


def read_identity(folder: Path) -> str:
    """The policy's ``identity`` without building it. Raises CheckpointError."""
    return _read(folder)[0].spec.checkpoint_hash


def load_checkpoint(folder: Path) -> tuple[ReferenceVLA, Manifest]:
    """The model (float32, CPU, eval mode) and its manifest. Raises CheckpointError."""
    manifest, data = _read(folder)
    model = ReferenceVLA(manifest.model)
    try:
        tensors = safetensors.torch.load(data)
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"'{folder / WEIGHTS}' is not safetensors: {error}") from error
    except RuntimeError as error:
        raise CheckpointError(f"the weights in '{folder}' do not fit: {error}") from error
    return model.eval(), manifest
