"""A small reference checkpoint with random weights, and observations that fit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ros_vla_accel.contracts import CameraSpec, InferenceRequest, Observation, PolicySpec
from ros_vla_accel.policies.checkpoint import Manifest, save_checkpoint
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.model import STAGES, ReferenceVLA
from ros_vla_accel.policies.normalization import Normalization
from ros_vla_accel.policies.text import WordTokenizer

JOINTS = tuple(f"j{i}" for i in range(9))


def small_config(objective: str = "flow") -> ModelConfig:
    return ModelConfig(
        width=48,
        heads=2,
        backbone_layers=1,
        blocks=6,
        expert_hidden=32,
        vocabulary=8,
        objective=objective,
    )


def random_model(config: ModelConfig) -> ReferenceVLA:
    """A model whose adaLN-Zero layers are not zero: otherwise no block would matter."""
    torch.manual_seed(0)
    model = ReferenceVLA(config)
    for layer in model.head.zero_layers():
        torch.nn.init.normal_(layer.weight, std=0.05)
    return model.eval()


def write_checkpoint(folder: Path, objective: str = "flow") -> Path:
    config = small_config(objective)
    spec = PolicySpec(
        name="small",
        cameras=(CameraSpec("corner2", 64, 64), CameraSpec("gripperPOV", 64, 64)),
        state_names=JOINTS,
        action_names=("vx", "vy", "vz", "gripper"),
        horizon=16,
        period_s=0.05,
        action_kind="cartesian_velocity",
        stages=STAGES,
    )
    normalization = Normalization(
        [0.0] * 9, [1.0] * 9, [0.0] * 4, [0.1] * 3 + [1.0], [-0.2] * 3 + [-1.0], [0.2] * 3 + [1.0]
    )
    words = WordTokenizer(["open", "the", "drawer", "press", "button", "now"], config.words)
    manifest = Manifest(spec, config, normalization, words.vocabulary, {"command": "none"})
    save_checkpoint(folder, random_model(config), manifest)
    return folder


@pytest.fixture
def make_model() -> Callable[[str], ReferenceVLA]:
    """Objective -> a small random model."""
    return lambda objective="flow": random_model(small_config(objective))


@pytest.fixture
def make_checkpoint() -> Callable[..., Path]:
    """Folder and objective -> the folder, with a small checkpoint in it."""
    return write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def observation() -> Observation:
    rng = np.random.default_rng(0)
    images = {
        name: rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        for name in ("corner2", "gripperPOV")
    }
    state = rng.standard_normal(9).astype(np.float32)
    return Observation(images, state, "open the drawer", stamp_ns=7)


@pytest.fixture
def request_for() -> Callable[..., InferenceRequest]:
    def make(observation: object, seed: int = 3) -> InferenceRequest:
        return InferenceRequest(observation, request_id=5, episode_id=2, seed=seed)

    return make
