from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from ros_vla_accel.policies import reference
from ros_vla_accel.policies.checkpoint import (
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    sha256,
)
from ros_vla_accel.policies.reference_policy import SHIPPED


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_saved_comes_back(checkpoint: Path, tmp_path: Path) -> None:
    model, manifest = load_checkpoint(checkpoint)
    digest = save_checkpoint(tmp_path, model, manifest)
    again, same = load_checkpoint(tmp_path)
    assert same == manifest
    assert manifest.spec.checkpoint_hash == digest == sha256(tmp_path / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_flipped_bit_is_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or belongs to another manifest"):
        reference(copy)


def test_a_cut_off_file_is_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="has SHA-256"):
        reference(copy)


def test_missing_files_are_named(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names 'model\.safetensors', which is missing"):
        reference(copy)
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        reference(tmp_path / "nowhere")


def test_another_format_is_refused(copy: Path) -> None:
    edit_manifest(copy, format=99)
    with pytest.raises(CheckpointError, match="has format 99"):
        reference(copy)


def test_a_model_of_another_shape_is_refused(copy: Path) -> None:
    model = json.loads((copy / "manifest.json").read_text())["model"]
    edit_manifest(copy, model={**model, "expert_hidden": 64})
    with pytest.raises(CheckpointError, match="do not fit"):
        reference(copy)


def test_a_broken_manifest_is_refused(copy: Path) -> None:
    (copy / "manifest.json").write_text('{"format": 1')
    with pytest.raises(CheckpointError, match="not a valid manifest"):
        reference(copy)
    (copy / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(CheckpointError, match="KeyError"):
        reference(copy)


def test_the_shipped_checkpoint_is_whole_and_small() -> None:
    model, manifest = load_checkpoint(SHIPPED)
    assert sum(p.numel() for p in model.parameters()) <= 20_000_000
    assert (SHIPPED / "model.safetensors").stat().st_size <= 40_000_000
    assert manifest.spec.stages == ("vision", "backbone", "head")
    assert manifest.training["command"].startswith("ros-vla-accel train ")
