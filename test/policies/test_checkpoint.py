from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ros_vla_accel.policies import reference
from ros_vla_accel.policies.checkpoint import (
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from ros_vla_accel.policies.random_policy import checkpoint_folder


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def read_manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def edit_manifest(folder: Path, **changes: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(read_manifest(folder) | changes))


def test_what_is_saved_comes_back(checkpoint: Path, tmp_path: Path) -> None:
    model, manifest = load_checkpoint(checkpoint)
    digest = save_checkpoint(tmp_path, model, manifest)
    again, same = load_checkpoint(tmp_path)
    assert same == manifest
    assert manifest.spec.checkpoint_hash == digest
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        "model.safetensors",
    ]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("normalization", {"action_std": [0.2] * 3 + [1.0]}),
        ("spec", {"action_names": ["vy", "vx", "vz", "gripper"]}),
        ("spec", {"period_s": 0.1}),
    ],
)
def test_the_same_weights_under_another_manifest_are_another_policy(
    section: str, changes: dict[str, object], copy: Path
) -> None:
    before = reference(copy).spec.identity
    edit_manifest(copy, **{section: read_manifest(copy)[section] | changes})
    assert reference(copy).spec.identity != before


def test_another_order_of_words_is_another_policy_and_another_training_is_not(copy: Path) -> None:
    before = reference(copy).spec.identity
    edit_manifest(copy, training={"command": "another"})
    assert reference(copy).spec.identity == before
    edit_manifest(copy, vocabulary=read_manifest(copy)["vocabulary"][::-1])
    assert reference(copy).spec.identity != before


@pytest.mark.parametrize("name", ["../other.safetensors", "other.safetensors", None])
def test_weights_of_another_name_are_refused(name: object, copy: Path) -> None:
    for folder in (copy, copy.parent):
        shutil.copyfile(copy / "model.safetensors", folder / "other.safetensors")
    edit_manifest(copy, weights=read_manifest(copy)["weights"] | {"file": name})
    with pytest.raises(CheckpointError, match=r"it must be 'model\.safetensors'"):
        reference(copy)


def test_what_is_loaded_is_what_was_hashed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path.name) or read(path))
    monkeypatch.setattr(safetensors.torch, "load_file", None)
    load_checkpoint(copy)
    assert reads.count("model.safetensors") == 1


def test_weights_that_are_not_safetensors_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"pickle")
    digest = hashlib.sha256(b"pickle").hexdigest()
    edit_manifest(copy, weights=read_manifest(copy)["weights"] | {"sha256": digest})
    with pytest.raises(CheckpointError, match="is not safetensors"):
        reference(copy)


def test_a_save_that_breaks_off_leaves_the_checkpoint_before_it(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, manifest = load_checkpoint(copy)
    write = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        if path.name.startswith("manifest"):
            raise OSError("no space left")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    torch.nn.init.zeros_(model.head.out.weight)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(copy, model, manifest)
    assert load_checkpoint(copy)[1] == manifest


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
    edit_manifest(copy, model=read_manifest(copy)["model"] | {"expert_hidden": 64})
    with pytest.raises(CheckpointError, match="do not fit"):
        reference(copy)


def test_a_broken_manifest_is_refused(copy: Path) -> None:
    (copy / "manifest.json").write_text('{"format": 1')
    with pytest.raises(CheckpointError, match="not a valid manifest"):
        reference(copy)
    (copy / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(CheckpointError, match="KeyError"):
        reference(copy)


@pytest.mark.parametrize(
    ("name", "objective", "most_mb"), [("reference", "flow", 40), ("diffusion", "ddpm", 15)]
)
def test_shipped_checkpoints_are_whole_and_small(
    name: str, objective: str, most_mb: float
) -> None:
    folder = checkpoint_folder(name)
    model, manifest = load_checkpoint(folder)
    assert reference(name).spec == replace(manifest.spec, precision="float32")
    assert manifest.model.objective == objective
    assert sum(p.numel() for p in model.parameters()) <= 20_000_000
    assert (folder / "model.safetensors").stat().st_size <= most_mb * 1e6
    assert manifest.spec.stages == ("vision", "backbone", "head")
    assert manifest.training["command"].startswith("ros-vla-accel train ")
