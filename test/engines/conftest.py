"""A small checkpoint with random weights, exported once in every precision that runs on a CPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import torch

from ros_vla_accel.contracts import CameraSpec, InferenceRequest, PolicySpec
from ros_vla_accel.engines.check import random_observation
from ros_vla_accel.engines.export import ExportConfig, export
from ros_vla_accel.policies.checkpoint import Manifest, save_checkpoint
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.model import STAGES, ReferenceVLA
from ros_vla_accel.policies.normalization import Normalization
from ros_vla_accel.policies.reference_policy import ReferencePolicy
from ros_vla_accel.policies.text import WordTokenizer

STEPS = 4
CONFIG = ModelConfig(
    width=64,
    heads=2,
    backbone_layers=1,
    blocks=2,
    experts=4,
    expert_hidden=64,
    vocabulary=8,
    image_size=32,
)


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = ReferenceVLA(CONFIG)
    for layer in model.head.zero_layers():
        torch.nn.init.normal_(layer.weight, std=0.05)
    size = CONFIG.image_size
    spec = PolicySpec(
        name="small",
        cameras=(CameraSpec("front", size, size), CameraSpec("wrist", size, size)),
        state_names=tuple(f"j{i}" for i in range(9)),
        action_names=("vx", "vy", "vz", "gripper"),
        horizon=CONFIG.horizon,
        period_s=0.05,
        action_kind="cartesian_velocity",
        stages=STAGES,
    )
    normalization = Normalization(
        [0.0] * 9, [1.0] * 9, [0.0] * 4, [0.1] * 3 + [1.0], [-0.2] * 3 + [-1.0], [0.2] * 3 + [1.0]
    )
    words = WordTokenizer(["open", "the", "drawer"], CONFIG.words)
    manifest = Manifest(spec, CONFIG, normalization, words.vocabulary, {"command": "none"})
    save_checkpoint(folder, model.eval(), manifest)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def policy(checkpoint: Path) -> ReferencePolicy:
    """In torch."""
    return ReferencePolicy(checkpoint, steps=STEPS)


@pytest.fixture(scope="session")
def requests(policy: ReferencePolicy) -> list[InferenceRequest]:
    return [InferenceRequest(random_observation(policy.spec, i), i, 0, i) for i in range(3)]


@pytest.fixture(scope="session")
def exported_dir(
    policy: ReferencePolicy,
    requests: list[InferenceRequest],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Read only: copy it (``fresh_dir``) to change it."""
    folder = tmp_path_factory.mktemp("engines")
    # Dense, so that TensorRT can build from the same graphs.
    config = ExportConfig(("fp32", "w8a8", "w4a16", "w4a8", "fp8"), mixture="dense", batches=(1,))
    export(policy, folder, config, [r.observation for r in requests])
    return folder


@pytest.fixture
def fresh_dir(exported_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_dir, tmp_path / "engines"))


@pytest.fixture
def largest_difference() -> Callable[..., float]:
    """Between the actions of two lists of chunks."""

    def difference(ours: list, theirs: list) -> float:
        return max(
            float(np.abs(a.actions - b.actions).max()) for a, b in zip(ours, theirs, strict=True)
        )

    return difference
