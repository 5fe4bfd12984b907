"""A policy on a thread of its own: loaded there, run there, and never trusted."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from ros_vla_accel.contracts import (
    ActionChunk,
    Features,
    InferenceRequest,
    Observation,
    Policy,
    PolicySpec,
    SplitPolicy,
)
from ros_vla_accel.engines import EngineChoice

logger = logging.getLogger(__name__)

_Encoded = Callable[[InferenceRequest, float], None]
_Failed = Callable[[str], None]


class PolicyRunner:
    """Loads ``module:factory`` and answers requests, one at a time.

    The callbacks run on the runner's thread. on_loaded(policy) may raise ValueError to refuse the
    policy. on_answer(chunk, seconds) gets a checked chunk of source ``edge``; on_failure(request,
    text) whatever else happened, with None for a failed load. After ``close`` none is called: an
    inference that hangs must not hold up the node, so nobody waits for it.

    threads: CPU threads of the policy, if it uses torch or an engine.
    """

    def __init__(
        self,
        name: str,
        args: str,
        threads: int,
        on_loaded: Callable[[Policy], None],
        on_answer: Callable[[ActionChunk, float], None],
        on_failure: Callable[[InferenceRequest | None, str], None],
        engine: EngineChoice | None = None,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads is {threads}; a policy needs at least one")
        self._on_loaded, self._on_answer, self._on_failure = on_loaded, on_answer, on_failure
        self._closed = False
        self._episode_id = -1
        self._started_s: float | None = None
        self._thread = ThreadPoolExecutor(1, "policy")
        self._policy: Any = None
        self._thread.submit(self._load, name, args, threads, engine or EngineChoice())

    @property
    def busy_s(self) -> float:
        """Seconds for which the present inference has been running; 0 if none is."""
        started_s = self._started_s
        return 0.0 if started_s is None else time.monotonic() - started_s

    def infer(self, request: InferenceRequest) -> None:
        """Returns at once."""
        self._thread.submit(self._infer, request)

    def encode(
        self, request: InferenceRequest, cut: str, on_features: _Encoded, on_failure: _Failed
    ) -> None:
        """Returns at once. on_features(request, seconds) gets the request with its observation
        replaced by the features after the stage ``cut``, or on_failure what went wrong."""
        self._thread.submit(self._encode, request, cut, on_features, on_failure)

    def close(self) -> None:
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _load(self, name: str, args: str, threads: int, engine: EngineChoice) -> None:
        try:
            policy = engine.load(name, args, threads)
            if "torch" in sys.modules:
                # OpenMP keeps the number per calling thread, so it is set on this one.
                sys.modules["torch"].set_num_threads(threads)
            if self._closed:
                return
            self._policy = policy
            self._on_loaded(policy)
        except Exception as error:  # A user's factory may raise anything.
            self._report(None, f"policy '{name}' not loaded: {error}")

    def _infer(self, request: InferenceRequest) -> None:
        self._started_s = time.monotonic()
        try:
            if self._episode_id != request.episode_id:
                self._policy.reset(request.episode_id)
                self._episode_id = request.episode_id
            (chunk,) = self._policy.infer([request])
            check_answer(chunk, self._policy.spec)
        except Exception as error:  # A user's policy may raise anything; the arm then holds.
            self._report(request, f"policy raised {type(error).__name__}: {error}")
            return
        finally:
            seconds = self.busy_s
            self._started_s = None
        if not self._closed:
            timings_s = {**chunk.timings_s, "total": seconds}
            self._on_answer(replace(chunk, source="edge", timings_s=timings_s), seconds)

    def _encode(
        self, request: InferenceRequest, cut: str, on_features: _Encoded, on_failure: _Failed
    ) -> None:
        self._started_s = time.monotonic()
        try:
            bits = request.activation_bits
            features = self._policy.encode(request.observation, cut, bits)
        except Exception as error:  # As above; the edge then takes over.
            if not self._closed:
                on_failure(f"policy's encode raised {type(error).__name__}: {error}")
            return
        finally:
            seconds = self.busy_s
            self._started_s = None
        if not self._closed:
            on_features(replace(request, observation=features), seconds)

    def _report(self, request: InferenceRequest | None, text: str) -> None:
        if not self._closed:
            self._on_failure(request, text)


def check_answer(chunk: Any, spec: PolicySpec) -> None:
    """Raises TypeError or ValueError when a policy's answer is not what its spec promises."""
    if not isinstance(chunk, ActionChunk) or not isinstance(chunk.actions, np.ndarray):
        raise TypeError(f"expected an ActionChunk with an array of actions, got {chunk!r:.200}")
    shape = (spec.horizon, len(spec.action_names))
    if chunk.actions.shape != shape:
        raise ValueError(f"actions have shape {chunk.actions.shape}, the spec says {shape}")
    if chunk.period_s != spec.period_s:
        raise ValueError(f"period_s is {chunk.period_s}, the spec says {spec.period_s}")


def features_of(policy: SplitPolicy) -> list[tuple[Features, float]]:
    """Features of a black scene after each stage that the policy can be cut after, with the
    seconds that they took, from a second run: the first one warms the policy up.

    A stage whose features cannot be made is left out, with a warning in the log.
    """
    spec = policy.spec
    images = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in spec.cameras}
    state = np.zeros(len(spec.state_names), np.float32)
    scene = Observation(images, state, "move the arm", 0)
    found = []
    for cut in spec.stages[:-1]:
        try:
            policy.encode(scene, cut)
            start_s = time.perf_counter()
            features = policy.encode(scene, cut)
        except Exception as error:  # A user's policy may raise anything.
            logger.warning("policy %s cannot be cut after '%s': %s", spec.name, cut, error)
        else:
            found.append((features, time.perf_counter() - start_s))
    return found
