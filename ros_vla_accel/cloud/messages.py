"""What client and worker say to each other, as dataclasses that refuse a field out of range.

The checks run on construction, so a message is valid whether it is about to be sent or has just
arrived from a stranger; ``wire.py`` turns messages into frames and back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ros_vla_accel.partition.route import ENCODINGS

MAX_DATA_BYTES = 64 << 20
"""Largest data frame, and most bytes that the tensors of one request may decode to."""

DTYPES = ("uint8", "int8", "float16", "float32", "int32", "int64")
ERROR_CODES = (
    "schema",  # the other end speaks another schema version
    "refused",  # another policy than the one asked for
    "bad_request",  # tensors that cannot be decoded
    "superseded",  # a newer request of the same client took its place
    "expired",  # waited longer than remaining_s, so it was not computed
    "busy",  # too many clients are waiting
    "policy",  # the policy raised, or answered with something else than one chunk
    "unauthorized",  # the client's key was revoked
    "closing",  # the worker ends: it takes nothing new
    "unavailable",  # no replica of the policy runs
)
LEAVE_CODES = ("unauthorized", "closing", "unavailable")
"""Codes after which this worker answers no request of this client, whatever its request_id;
after the last one it may again, and says so to a probe."""

_UINT64 = 2**64 - 1
_INT64 = 2**63 - 1
_MAX_TENSORS = 64
_MAX_ACTIONS = 1 << 16


class WireError(ValueError):
    """A frame or a field that does not follow the wire format; the text names it."""


class SchemaError(WireError):
    """A frame of another schema version."""


def shown(value: object) -> str:
    """A stranger's value in an error text. Never ``repr`` of a whole container: a header holds
    enough of them to cost seconds, or to exhaust the stack."""
    if isinstance(value, str | bytes):
        return repr(value[:80])
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r:.80}"


def _text(name: str, value: object, longest: int) -> None:
    if not isinstance(value, str) or len(value) > longest:
        raise WireError(f"{name} is {shown(value)}; expected text of at most {longest} characters")


def _choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise WireError(f"{name} is {shown(value)}; expected one of {', '.join(choices)}")


def _integer(name: str, value: object, low: int = 0, high: int = _UINT64) -> None:
    if type(value) is not int or not low <= value <= high:
        raise WireError(f"{name} is {shown(value)}; expected an integer in {low}..{high}")


def _number(name: str, value: object, low: float, high: float) -> None:
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise WireError(f"{name} is {shown(value)}; expected a number in {low}..{high}")


def _items(name: str, value: object, most: int) -> tuple[object, ...]:
    if not isinstance(value, tuple) or len(value) > most:
        raise WireError(f"{name} is {shown(value)}; expected a list of at most {most}")
    return value


@dataclass(frozen=True)
class TensorDescriptor:
    """One tensor inside a request's data; the fields of ``msg/TensorDescriptor.msg``.

    shape and dtype are the decoded tensor's. With a scale (one value, or one per leading row)
    the decoded tensor is float32, ``stored * scale``. offset, size: bytes inside the data.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: tuple[float, ...] = ()
    encoding: str = "raw"
    offset: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        _text("tensor name", self.name, 128)
        where = f"tensor '{self.name}': "
        _choice(where + "dtype", self.dtype, DTYPES)
        _choice(where + "encoding", self.encoding, ENCODINGS)
        for length in _items(where + "shape", self.shape, 8):
            _integer(where + "shape entry", length, 0, MAX_DATA_BYTES)
        rows = self.shape[0] if self.shape else 1
        for value in _items(where + "scale", self.scale, MAX_DATA_BYTES):
            _number(where + "scale entry", value, 0.0, 3.4e38)
        if len(self.scale) not in {0, 1, rows}:
            raise WireError(f"{where}{len(self.scale)} scales; expected 0, 1 or {rows}")
        _integer(where + "offset", self.offset, 0, MAX_DATA_BYTES)
        _integer(where + "size", self.size, 0, MAX_DATA_BYTES)
        if self.nbytes > MAX_DATA_BYTES:
            raise WireError(f"{where}shape {self.shape} is over {MAX_DATA_BYTES} bytes")
        if self.encoding == "raw" and self.size != self.nbytes:
            raise WireError(f"{where}size {self.size}; its shape and dtype need {self.nbytes}")

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor as it is stored, before a scale makes it float32."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Hello:
    """Client to worker: who asks. session names one incarnation of a client."""

    session: str

    def __post_init__(self) -> None:
        _text("session", self.session, 64)


@dataclass(frozen=True)
class Welcome:
    """Worker to client: which policy answers here, and in which precision, which may differ from
    the robot's. worker names one incarnation of a worker."""

    session: str
    worker: str
    policy: str
    policy_hash: str
    stages: tuple[str, ...]
    widths: tuple[int, ...]
    precision: str = ""

    def __post_init__(self) -> None:
        _text("session", self.session, 64)
        _text("precision", self.precision, 256)
        _text("worker", self.worker, 64)
        _text("policy", self.policy, 256)
        _text("policy_hash", self.policy_hash, 128)
        for stage in _items("stages", self.stages, 16):
            _text("stage", stage, 64)
        for width in _items("widths", self.widths, 16):
            _integer("width", width, 1, 64)


@dataclass(frozen=True)
class RequestHeader:
    """Client to worker, with one data frame: the fields of ``msg/InferenceRequest.msg``.

    remaining_s: how long after its arrival the answer is of use: the time to the deadline less
        a round trip. A duration, so that the clocks of two machines are never compared.
        ``CloudClient`` fills it in, and session too.
    stamp_ns: robot-side stamp of the observation, echoed and not interpreted.
    previous_actions: chunk in play as little-endian float32, row-major, with previous_horizon
        rows of which executed_rows have been executed; empty if there is none.
    """

    request_id: int
    episode_id: int
    stamp_ns: int
    seed: int
    activation_bits: int
    cut: str
    instruction: str
    policy_hash: str
    tensors: tuple[TensorDescriptor, ...]
    previous_actions: bytes = b""
    previous_horizon: int = 0
    executed_rows: int = 0
    remaining_s: float = 0.0
    session: str = ""

    def __post_init__(self) -> None:
        _text("session", self.session, 64)
        _integer("request_id", self.request_id)
        _integer("episode_id", self.episode_id)
        _integer("stamp_ns", self.stamp_ns, 0, _INT64)
        _integer("seed", self.seed)
        _integer("activation_bits", self.activation_bits, 1, 64)
        _number("remaining_s", self.remaining_s, 0.0, 3600.0)
        _text("cut", self.cut, 64)
        _text("instruction", self.instruction, 4096)
        _text("policy_hash", self.policy_hash, 128)
        total = 0
        for tensor in _items("tensors", self.tensors, _MAX_TENSORS):
            if not isinstance(tensor, TensorDescriptor):
                raise WireError(f"tensors holds {shown(tensor)}; expected descriptors")
            total += tensor.nbytes
        if total > MAX_DATA_BYTES:
            raise WireError(f"tensors decode to {total} bytes; at most {MAX_DATA_BYTES}")
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            raise WireError(f"tensors holds a name twice: {names!r:.200}")
        _integer("previous_horizon", self.previous_horizon, 0, 4096)
        _integer("executed_rows", self.executed_rows, 0, 2**32 - 1)
        size = len(self.previous_actions) if isinstance(self.previous_actions, bytes) else -1
        row = 4 * self.previous_horizon
        if not 0 <= size <= 4 * _MAX_ACTIONS or (size % row if row else size):
            raise WireError(
                f"previous_actions has {size} bytes; expected float32 in "
                f"{self.previous_horizon} equal rows"
            )


@dataclass(frozen=True)
class ReplyHeader:
    """Worker to client, with one data frame: horizon x action_size float32, little-endian.

    queue_s, decode_s, inference_s: durations on the worker: waiting, decoding the tensors,
    the policy. timings_s: what the policy itself reports. The rest echoes the request.
    """

    session: str
    request_id: int
    episode_id: int
    stamp_ns: int
    horizon: int
    action_size: int
    period_s: float
    activation_bits: int
    queue_s: float
    decode_s: float
    inference_s: float
    timings_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _text("session", self.session, 64)
        _integer("request_id", self.request_id)
        _integer("episode_id", self.episode_id)
        _integer("stamp_ns", self.stamp_ns, 0, _INT64)
        _integer("horizon", self.horizon, 0, 4096)
        _integer("action_size", self.action_size, 0, _MAX_ACTIONS)
        if self.horizon * self.action_size > _MAX_ACTIONS:
            raise WireError(f"{self.horizon} x {self.action_size} actions; at most {_MAX_ACTIONS}")
        _number("period_s", self.period_s, 1e-6, 3600.0)
        _integer("activation_bits", self.activation_bits, 1, 64)
        for name in ("queue_s", "decode_s", "inference_s"):
            _number(name, getattr(self, name), 0.0, 1e6)
        if not isinstance(self.timings_s, dict) or len(self.timings_s) > 32:
            raise WireError(f"timings_s is {shown(self.timings_s)}; expected at most 32 durations")
        for name, value in self.timings_s.items():
            _text("timing", name, 64)
            _number(f"timing '{name}'", value, 0.0, 1e6)


@dataclass(frozen=True)
class Refusal:
    """Worker to client: no chunk for this request, why, and one of ``ERROR_CODES``."""

    session: str
    request_id: int
    code: str
    text: str

    def __post_init__(self) -> None:
        _text("session", self.session, 64)
        _integer("request_id", self.request_id)
        _choice("code", self.code, ERROR_CODES)
        _text("text", self.text, 1024)


@dataclass(frozen=True)
class Ping:
    """Client to worker: are you there? seq is echoed."""

    session: str
    seq: int

    def __post_init__(self) -> None:
        _text("session", self.session, 64)
        _integer("seq", self.seq)


@dataclass(frozen=True)
class Pong:
    """Worker to client: still here, and still the incarnation that said welcome."""

    session: str
    seq: int
    worker: str

    def __post_init__(self) -> None:
        _text("session", self.session, 64)
        _integer("seq", self.seq)
        _text("worker", self.worker, 64)


Message = Hello | Welcome | RequestHeader | ReplyHeader | Refusal | Ping | Pong
