"""A small NumPy policy whose actions depend on every input that a request can carry."""

from __future__ import annotations

import os
import pathlib
import threading
import time
import zlib
from collections.abc import Sequence

import numpy as np

from ros_vla_accel.contracts import (
    ActionChunk,
    CameraSpec,
    Features,
    InferenceRequest,
    Observation,
    PolicySpec,
)

HASH = "f00dcafe" * 8
HORIZON, ACTIONS, STATES, CELLS = 16, 4, 9, 8


class MixingPolicy:
    """Random projections of pooled images, state, instruction, previous rows and noise.

    delay_s: extra time per inference. gate: when given, every inference waits for it.
    """

    def __init__(
        self,
        delay_s: float = 0.0,
        checkpoint_hash: str = HASH,
        fail: str = "",
        gate: threading.Event | None = None,
    ):
        self.spec = PolicySpec(
            name="mixing",
            cameras=(CameraSpec("front", 64, 64), CameraSpec("wrist", 48, 64)),
            state_names=tuple(f"j{i}" for i in range(STATES)),
            action_names=("vx", "vy", "vz", "gripper"),
            horizon=HORIZON,
            period_s=0.05,
            action_kind="cartesian_velocity",
            stages=("vision", "backbone", "head"),
            widths=(8, 16),
            checkpoint_hash=checkpoint_hash,
        )
        rng = np.random.default_rng(7)
        self._image_weight = rng.normal(size=(CELLS * CELLS * 3, HORIZON * ACTIONS))
        self._state_weight = rng.normal(size=(STATES, HORIZON * ACTIONS))
        self._delay_s = delay_s
        self._fail = fail
        self._gate = gate
        self.started = threading.Semaphore(0)
        self.computed: list[int] = []
        self.episodes: list[int] = []

    def infer(self, requests: Sequence[InferenceRequest]) -> list[ActionChunk]:
        self.started.release()
        if self._gate is not None:
            assert self._gate.wait(20)
        time.sleep(self._delay_s)
        if self._fail:
            raise RuntimeError(self._fail)
        self.computed += [request.request_id for request in requests]
        return [self._chunk(request) for request in requests]

    def reset(self, episode_id: int) -> None:
        self.episodes.append(episode_id)

    def vision(self, observation: Observation) -> Features:
        """Stage ``vision``: pooled images by camera, with what the later stages need."""
        pooled = {name: _pool(image) for name, image in observation.images.items()}
        tensors = {f"tokens/{name}": value for name, value in pooled.items()}
        text = np.frombuffer(observation.instruction.encode(), np.uint8)
        tensors |= {"state": observation.state, "text": text}
        return Features("vision", tensors, observation.stamp_ns)

    def _chunk(self, request: InferenceRequest) -> ActionChunk:
        content = request.observation
        features = self.vision(content) if isinstance(content, Observation) else content
        mix = features.tensors["state"].astype(np.float64) @ self._state_weight
        for name, tokens in sorted(features.tensors.items()):
            if name.startswith("tokens/"):
                mix += (1 + len(name)) * (tokens.astype(np.float64) @ self._image_weight)
        mix += zlib.crc32(features.tensors["text"].tobytes()) / 2**32
        mix += np.random.default_rng(request.seed).normal(size=mix.shape)
        mix += request.activation_bits / 16 + request.executed_rows / 7
        if request.previous is not None:
            mix += request.previous.actions.mean()
        return ActionChunk(
            actions=np.tanh(mix / 10).astype(np.float32).reshape(HORIZON, ACTIONS),
            period_s=self.spec.period_s,
            stamp_ns=features.stamp_ns,
            request_id=request.request_id,
            episode_id=request.episode_id,
            source="edge",
            activation_bits=request.activation_bits,
            timings_s={"head": 0.001},
        )


def _pool(image: np.ndarray) -> np.ndarray:
    rows, columns = image.shape[0] // CELLS, image.shape[1] // CELLS
    cut = image[: rows * CELLS, : columns * CELLS].astype(np.float32)
    cells = cut.reshape(CELLS, rows, CELLS, columns, 3).mean(axis=(1, 3))
    return (cells / 255).reshape(-1)


def mixing(delay_s: float = 0.0, checkpoint_hash: str = HASH, fail: str = "") -> MixingPolicy:
    return MixingPolicy(delay_s, checkpoint_hash, fail)


def observation(seed: int = 0, stamp_ns: int = 1_000_000_000) -> Observation:
    """Smooth images, as a camera gives them, so that JPEG has a fair chance."""
    rng = np.random.default_rng(seed)
    return Observation(
        images={"front": _image(rng, 64, 64), "wrist": _image(rng, 48, 64)},
        state=rng.normal(size=STATES).astype(np.float32),
        instruction="öffne die Schublade",
        stamp_ns=stamp_ns,
    )


def _image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    low, high = rng.uniform(0, 100, 3), rng.uniform(100, 255, 3)
    slope = (x / width * 0.7 + y / height * 0.3)[..., None]
    return (low + (high - low) * slope).astype(np.uint8)


def request(request_id: int = 1, seed: int = 0, **changes: object) -> InferenceRequest:
    previous = ActionChunk(
        np.full((HORIZON, ACTIONS), 0.25, np.float32), 0.05, 900_000_000, 7, 3, "edge"
    )
    values: dict[str, object] = dict(
        observation=observation(seed),
        request_id=request_id,
        episode_id=3,
        seed=2**63 + 5,
        activation_bits=8,
        previous=previous,
        executed_rows=2,
    )
    return InferenceRequest(**{**values, **changes})  # type: ignore[arg-type]


class _ExitingPolicy(MixingPolicy):
    def infer(self, requests: Sequence[InferenceRequest]) -> list[ActionChunk]:
        raise SystemExit(3)  # not an Exception, as an interpreter that shuts down would raise


def exiting() -> MixingPolicy:
    return _ExitingPolicy()


class _GatedPolicy(MixingPolicy):
    def __init__(self, folder: pathlib.Path):
        super().__init__()
        self._folder = folder

    def infer(self, requests: Sequence[InferenceRequest]) -> list[ActionChunk]:
        (self._folder / "started").touch()
        end = time.monotonic() + 20
        while not (self._folder / "go").exists():
            assert time.monotonic() < end
            time.sleep(0.005)
        return super().infer(requests)


def gated(folder: str) -> MixingPolicy:
    """For another process: every inference leaves ``started`` in the folder, and waits for
    ``go`` there."""
    return _GatedPolicy(pathlib.Path(folder))


def replicated(folder: str, delay_s: float = 0.0) -> MixingPolicy:
    """Leaves its process id in ``folder`` and takes its checkpoint's hash from there."""
    here = pathlib.Path(folder)
    policy = MixingPolicy(delay_s, (here / "hash").read_text().strip())
    (here / f"{os.getpid()}.pid").touch()
    return policy
