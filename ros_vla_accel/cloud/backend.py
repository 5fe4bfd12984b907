"""Where a batch is computed: in this process, or elsewhere (``ray_backend.py``)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence

from ros_vla_accel.contracts import ActionChunk, InferenceRequest, Policy, PolicySpec

_EPISODES = 1024
"""Robots whose episode is remembered."""


class BackendError(RuntimeError):
    """Why there is no answer. code: what the robots are told, see ``messages.ERROR_CODES``;
    with ``policy`` it is the request's fault, else it could not be computed at all."""

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code = code


class Backend(ABC):
    """Computes batches, up to ``lanes`` at once, each for the thread that waits for it."""

    spec: PolicySpec
    lanes: int

    @abstractmethod
    def infer(
        self, robots: Sequence[bytes], requests: Sequence[InferenceRequest], deadline_s: float
    ) -> list[ActionChunk]:
        """The policy's answers, one per request.

        robots: who asks, for each request. deadline_s: steady time after which nobody waits.
        Raises what the policy raises, and BackendError when it could not be asked.
        """

    def problem(self) -> str:
        """Why no request can be answered at present; empty if it can. Never waits."""
        return ""

    def close(self) -> None:  # noqa: B027 (nothing to end is the rule)
        """Ends what it started."""


class EpisodePolicy:
    """A policy that several robots share: it is reset when a robot's episode changes."""

    def __init__(self, policy: Policy):
        self._policy = policy
        self._episodes: OrderedDict[bytes, int] = OrderedDict()  # of each robot

    def infer(
        self, robots: Sequence[bytes], requests: Sequence[InferenceRequest]
    ) -> list[ActionChunk]:
        """One chunk per request; belongs to one thread."""
        for robot, request in zip(robots, requests, strict=True):
            self._reset_if_new(robot, request.episode_id)
        return self._policy.infer(requests)

    def _reset_if_new(self, robot: bytes, episode_id: int) -> None:
        if self._episodes.get(robot) != episode_id:
            self._policy.reset(episode_id)
        self._episodes[robot] = episode_id
        self._episodes.move_to_end(robot)
        if len(self._episodes) > _EPISODES:
            self._episodes.popitem(last=False)


class InProcess(Backend):
    """The policy in this process, in the thread that asks."""

    lanes = 1

    def __init__(self, policy: Policy):
        self.spec = policy.spec
        self._policy = EpisodePolicy(policy)

    def infer(
        self, robots: Sequence[bytes], requests: Sequence[InferenceRequest], deadline_s: float
    ) -> list[ActionChunk]:
        return self._policy.infer(robots, requests)
