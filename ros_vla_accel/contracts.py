"""What all parts exchange: observations, requests, action chunks and the policy protocol.

This module knows NumPy alone, so that a robot without torch can run controllers and replay.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np

SCHEMA_VERSION = 1
"""Version of the messages and of the wire. Both ends refuse any other."""

ACTIVATION_BITS = (2, 4, 8, 16)
"""Activation widths of W4AX (arXiv:2603.07904); 16 is BF16, the full-precision fallback."""


def executed_width(bits: int, widths: Sequence[int]) -> int:
    """The width that a policy of these ``widths`` runs at when asked for ``bits``."""
    return min((width for width in widths if width >= bits), default=max(widths))


class ExecutorCode(IntEnum):
    """States of the executor, as ``ExecutorState.msg`` numbers them."""

    IDLE = 0
    PLAYING = 1
    STARVED = 2
    FAULT = 3


@dataclass(frozen=True)
class Observation:
    """What the robot saw and felt at one instant.

    images: camera name -> (H, W, 3) uint8, RGB.
    state: (D,) float32, in the order of ``PolicySpec.state_names``.
    stamp_ns: robot-side stamp, nanoseconds on the node's clock.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    instruction: str
    stamp_ns: int


@dataclass(frozen=True)
class Features:
    """An observation that has already passed the stages up to ``cut``.

    tensors: what leaves the edge after the stage ``cut`` (``vision`` or ``backbone``).
    """

    cut: str
    tensors: dict[str, np.ndarray]
    stamp_ns: int


@dataclass(frozen=True)
class ActionChunk:
    """A policy's answer: ``horizon`` action rows, row k due at ``stamp_ns + k * period_s``.

    actions: (H, A) float32, unnormalized, in the order of ``PolicySpec.action_names``.
        Zero rows mean "stop": whatever is in play ends and the robot holds.
    stamp_ns: stamp of the observation that this chunk answers.
    source: who computed it (``edge``, ``cloud``), or ``stop``.
    timings_s: durations by name on the machine that computed them, never differences of stamps
        of two machines.
    """

    actions: np.ndarray
    period_s: float
    stamp_ns: int
    request_id: int
    episode_id: int
    source: str
    activation_bits: int = 16
    timings_s: dict[str, float] = field(default_factory=dict)

    @property
    def horizon(self) -> int:
        return int(self.actions.shape[0])

    @property
    def period_ns(self) -> int:
        return round(self.period_s * 1e9)


@dataclass(frozen=True)
class InferenceRequest:
    """One question to a policy.

    request_id rises per policy process and across its restarts; episode_id changes with each
    new instruction. seed fixes the noise of a generative head, so that edge and cloud compute
    the same function. deadline_ns: instant after which nobody waits for the answer, on the clock
    of the observation's stamp. previous and executed_rows: the chunk in play and how many of its
    rows have been executed, for policies that continue from it.
    """

    observation: Observation | Features
    request_id: int
    episode_id: int
    seed: int = 0
    activation_bits: int = 16
    deadline_ns: int = 0
    previous: ActionChunk | None = None
    executed_rows: int = 0


@dataclass(frozen=True)
class CameraSpec:
    """A camera that a policy expects: name and the size to which images are resized (pixels)."""

    name: str
    height: int
    width: int


@dataclass(frozen=True)
class PolicySpec:
    """What a policy takes and gives.

    action_kind: meaning of an action row, e.g. ``cartesian_velocity`` (m/s, gripper -1..1).
    replan_rows: a new chunk is wanted after at most so many executed rows.
    stages: names of the separate stages; an offloaded request may leave after any but the last.
    widths: activation widths that the policy really executes; others run at the next wider one.
    precision: of weights and arithmetic, for people: edge and cloud may differ in it.
    checkpoint_hash: SHA-256 of the weights and of whatever else decides the answers (normalization
        and vocabulary, say); see ``identity``.
    """

    name: str
    cameras: tuple[CameraSpec, ...]
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    horizon: int
    period_s: float
    action_kind: str
    replan_rows: int = 8
    stages: tuple[str, ...] = ()
    widths: tuple[int, ...] = (16,)
    checkpoint_hash: str = ""
    precision: str = ""

    @property
    def identity(self) -> str:
        """What edge and cloud compare: the checkpoint's hash, or without one the hash of what
        the policy takes and gives, so that no other columns reach the arm."""
        if self.checkpoint_hash:
            return self.checkpoint_hash
        described = repr(dataclasses.replace(self, widths=(), stages=(), precision=""))
        return hashlib.sha256(described.encode()).hexdigest()

    def __post_init__(self) -> None:
        if self.horizon < 1 or not 0 < self.replan_rows <= self.horizon:
            raise ValueError(
                f"policy '{self.name}': replan_rows {self.replan_rows} must lie in "
                f"1..horizon ({self.horizon})"
            )
        if self.period_s <= 0:
            raise ValueError(f"policy '{self.name}': period_s must be positive")


@runtime_checkable
class Policy(Protocol):
    """Any policy. Implementations need not be thread-safe: one inference is in flight at most."""

    spec: PolicySpec

    def infer(self, requests: Sequence[InferenceRequest]) -> list[ActionChunk]:
        """Answers a batch, one chunk per request, in order."""
        ...

    def reset(self, episode_id: int) -> None:
        """Forgets what belongs to earlier episodes."""
        ...


@runtime_checkable
class SplitPolicy(Policy, Protocol):
    """A policy that can be cut: another machine with the same checkpoint runs the rest."""

    def encode(self, observation: Observation, cut: str, activation_bits: int = 16) -> Features:
        """What leaves the edge after the stage ``cut``, one of ``spec.stages`` but the last.

        ``infer`` takes the features in place of the observation. Called between inferences,
        never beside one. Raises ValueError for another cut.
        """
        ...


@runtime_checkable
class AcceleratedPolicy(Policy, Protocol):
    """A policy whose action head can reuse work between denoising steps and inferences."""

    def accelerate(self, cache: Mapping[str, Any] | None, warm_start: float) -> None:
        """Between inferences. cache: settings of ``moeca.BranchCacheConfig``, None for no cache;
        warm_start: share of the steps to skip by beginning at the chunk in play, 0 for none.
        Raises ValueError or TypeError for settings that make no sense."""
        ...

    def reused(self) -> float:
        """Share of the cached work that was not done again since ``accelerate``; NaN: no cache."""
        ...
