"""Observations and features as inference_request messages, and what each form of them costs."""

from __future__ import annotations

import time
from collections.abc import Callable

from ros_vla_accel.cloud.codec import encode_features, encode_observation, request_header
from ros_vla_accel.contracts import Features, InferenceRequest, Observation
from ros_vla_accel.msg import InferenceRequest as InferenceRequestMsg
from ros_vla_accel.nodes.convert import request_to_msg
from ros_vla_accel.partition.latency import LatencyWindow
from ros_vla_accel.partition.route import ENCODINGS
from ros_vla_accel.partition.split_planner import FormCost

MEASURE_EVERY = 100
"""Requests after which all encodings of the images are tried anew: scenes change."""


class RequestSender:
    """Belongs to the encoding thread; ``costs`` may be read, and features noted, from any.

    policy_hash: what the worker must run. jpeg_quality: 1..100. features_dtype: of features on
    the wire, see ``encode_features``. publish: gets each message.
    """

    def __init__(
        self,
        policy_hash: str,
        jpeg_quality: int,
        features_dtype: str,
        publish: Callable[[InferenceRequestMsg], None],
    ) -> None:
        self._policy_hash, self._publish = policy_hash, publish
        self._quality, self._dtype = jpeg_quality, features_dtype
        self._prepare_s: dict[str, LatencyWindow] = {}
        self._bytes: dict[str, int] = {}
        self._until_measured = 0
        self.bytes_sent = 0

    @property
    def costs(self) -> dict[str, FormCost]:
        """By the name of the form, see ``split_planner.Form``."""
        return {
            name: FormCost(self._prepare_s[name].p50_s, size)
            for name, size in list(self._bytes.items())
        }

    def send(
        self,
        request: InferenceRequest,
        deadline_ns: int,
        encoding: str,
        instruction: str,
        computed_s: float = 0.0,
    ) -> None:
        """Publishes a request. encoding: of the images, if it holds an observation; computed_s:
        what the stages before the cut took, if it holds features."""
        content, start_s = request.observation, time.perf_counter()
        if isinstance(content, Features):
            tensors, data = encode_features(content, self._dtype)
        else:
            tensors, data = encode_observation(content, encoding, self._quality)
        spent_s = computed_s + time.perf_counter() - start_s
        header = request_header(request, tensors, self._policy_hash, instruction)
        self._publish(request_to_msg(header, deadline_ns, data))
        self.bytes_sent += len(data)
        self._note(content.cut if isinstance(content, Features) else encoding, spent_s, len(data))
        # Once the request is on its way: what the other encodings would have cost.
        self._until_measured -= 1
        if isinstance(content, Observation) and self._until_measured < 0:
            self._until_measured = MEASURE_EVERY
            for other in ENCODINGS:
                if other != encoding:
                    start_s = time.perf_counter()
                    _, data = encode_observation(content, other, self._quality)
                    self._note(other, time.perf_counter() - start_s, len(data))

    def note_features(self, features: Features, computed_s: float) -> None:
        """Features that were computed to see what they cost."""
        start_s = time.perf_counter()
        _, data = encode_features(features, self._dtype)
        self._note(features.cut, computed_s + time.perf_counter() - start_s, len(data))

    def drop(self, cut: str) -> None:
        """The policy cannot be cut there after all."""
        self._bytes.pop(cut, None)

    def _note(self, name: str, seconds: float, size: int) -> None:
        self._prepare_s.setdefault(name, LatencyWindow(16)).add(seconds)
        self._bytes[name] = size
