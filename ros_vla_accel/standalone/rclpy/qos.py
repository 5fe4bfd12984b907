"""Quality of service, with rclpy's names and defaults, and its translation to DDS."""

# ruff: noqa: N818 (names are rclpy's)

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any

from cyclonedds.core import Policy, Qos

from ..dds.library import INFINITY
from .duration import Duration


class QoSPolicyKind(IntEnum):
    INVALID = 1 << 0
    DURABILITY = 1 << 1
    DEADLINE = 1 << 2
    LIVELINESS = 1 << 3
    RELIABILITY = 1 << 4
    HISTORY = 1 << 5
    LIFESPAN = 1 << 6
    DEPTH = 1 << 7
    LIVELINESS_LEASE_DURATION = 1 << 8
    AVOID_ROS_NAMESPACE_CONVENTIONS = 1 << 9


def qos_policy_name_from_kind(policy_kind: int) -> str:
    return QoSPolicyKind(policy_kind).name


class InvalidQoSProfileException(Exception):
    """A profile without a history depth."""

    def __init__(self, message: str) -> None:
        super().__init__(f"Invalid QoSProfile: {message}")


class QoSPolicyEnum(IntEnum):
    """Base of the policies; SYSTEM_DEFAULT is 0 in each."""

    @classmethod
    def short_keys(cls) -> list[str]:
        return [key.lower() for key in cls.__members__]

    @classmethod
    def get_from_short_key(cls, name: str) -> int:
        return cls[name.upper()].value

    @property
    def short_key(self) -> str:
        return self.name.lower()


class HistoryPolicy(QoSPolicyEnum):
    SYSTEM_DEFAULT = 0
    KEEP_LAST = 1
    KEEP_ALL = 2
    UNKNOWN = 3


class ReliabilityPolicy(QoSPolicyEnum):
    SYSTEM_DEFAULT = 0
    RELIABLE = 1
    BEST_EFFORT = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class DurabilityPolicy(QoSPolicyEnum):
    SYSTEM_DEFAULT = 0
    TRANSIENT_LOCAL = 1
    VOLATILE = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class LivelinessPolicy(QoSPolicyEnum):
    SYSTEM_DEFAULT = 0
    AUTOMATIC = 1
    MANUAL_BY_TOPIC = 3
    UNKNOWN = 4
    BEST_AVAILABLE = 5


QoSHistoryPolicy = HistoryPolicy
QoSReliabilityPolicy = ReliabilityPolicy
QoSDurabilityPolicy = DurabilityPolicy
QoSLivelinessPolicy = LivelinessPolicy

_UNSPECIFIED = Duration()


class QoSProfile:
    """Policies of an endpoint; reliable, volatile, keep last, as in rclpy.

    Raises InvalidQoSProfileException if neither depth nor KEEP_ALL is given.
    """

    __slots__ = (
        "avoid_ros_namespace_conventions",
        "deadline",
        "depth",
        "durability",
        "history",
        "lifespan",
        "liveliness",
        "liveliness_lease_duration",
        "reliability",
    )

    def __init__(
        self,
        history: HistoryPolicy | int | None = None,
        depth: int | None = None,
        reliability: ReliabilityPolicy | int | None = None,
        durability: DurabilityPolicy | int | None = None,
        lifespan: Duration | None = None,
        deadline: Duration | None = None,
        liveliness: LivelinessPolicy | int | None = None,
        liveliness_lease_duration: Duration | None = None,
        avoid_ros_namespace_conventions: bool | None = None,
    ) -> None:
        if history is None:
            if depth is None:
                raise InvalidQoSProfileException("History and/or depth settings are required.")
            history = HistoryPolicy.KEEP_LAST
        if history == HistoryPolicy.KEEP_LAST and depth is None:
            raise InvalidQoSProfileException("History set to KEEP_LAST without a depth setting.")
        self.history = HistoryPolicy(history)
        self.depth = 10 if depth is None else depth
        self.reliability = ReliabilityPolicy(reliability or ReliabilityPolicy.RELIABLE)
        self.durability = DurabilityPolicy(durability or DurabilityPolicy.VOLATILE)
        self.liveliness = LivelinessPolicy(liveliness or LivelinessPolicy.SYSTEM_DEFAULT)
        self.lifespan = lifespan or _UNSPECIFIED
        self.deadline = deadline or _UNSPECIFIED
        self.liveliness_lease_duration = liveliness_lease_duration or _UNSPECIFIED
        self.avoid_ros_namespace_conventions = bool(avoid_ros_namespace_conventions)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QoSProfile):
            return False
        return all(getattr(self, slot) == getattr(other, slot) for slot in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        shown = ", ".join(f"{slot}={getattr(self, slot)}" for slot in self.__slots__)
        return f"QoSProfile({shown})"

    __repr__ = __str__

    def to_dds(self, user_data: str = "") -> Qos:
        """The profile as rmw_cyclonedds would set it, with ``user_data`` in USER_DATA."""
        policies: list[Any] = [Policy.WriterDataLifecycle(autodispose=False)]
        if self.history == HistoryPolicy.KEEP_ALL:
            history: Any = Policy.History.KeepAll
        else:
            history = Policy.History.KeepLast(max(1, self.depth))
        policies.append(history)
        if self.reliability == ReliabilityPolicy.BEST_EFFORT:
            policies.append(Policy.Reliability.BestEffort)
        else:
            policies.append(Policy.Reliability.Reliable(INFINITY))
        if self.durability == DurabilityPolicy.TRANSIENT_LOCAL:
            policies.append(Policy.Durability.TransientLocal)
            policies.append(Policy.DurabilityService(0, history, -1, -1, -1))
        if self.lifespan != _UNSPECIFIED:
            policies.append(Policy.Lifespan(_dds_duration(self.lifespan)))
        if self.deadline != _UNSPECIFIED:
            policies.append(Policy.Deadline(_dds_duration(self.deadline)))
        lease = INFINITY
        if self.liveliness_lease_duration != _UNSPECIFIED:
            lease = _dds_duration(self.liveliness_lease_duration)
        if self.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC:
            policies.append(Policy.Liveliness.ManualByTopic(lease))
        else:
            policies.append(Policy.Liveliness.Automatic(lease))
        policies.append(Policy.DataRepresentation(use_cdrv0_representation=True))
        if user_data:
            policies.append(Policy.Userdata(user_data.encode()))
        return Qos(*policies)


def _dds_duration(duration: Duration) -> int:
    return INFINITY if duration.nanoseconds >= 2**63 - 1 else duration.nanoseconds


qos_profile_default = QoSProfile(depth=10)
qos_profile_system_default = QoSProfile(depth=10)
qos_profile_sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
qos_profile_services_default = QoSProfile(depth=10)
qos_profile_parameters = QoSProfile(depth=1000)
qos_profile_parameter_events = QoSProfile(depth=1000)


class QoSPresetProfiles(Enum):
    SYSTEM_DEFAULT = qos_profile_system_default
    SENSOR_DATA = qos_profile_sensor_data
    SERVICES_DEFAULT = qos_profile_services_default
    PARAMETERS = qos_profile_parameters
    PARAMETER_EVENTS = qos_profile_parameter_events


def as_profile(qos_or_depth: QoSProfile | int) -> QoSProfile:
    """rclpy's rule: a number is the depth of a default profile.

    Raises TypeError for anything else and ValueError for a negative depth.
    """
    if isinstance(qos_or_depth, QoSProfile):
        return qos_or_depth
    if not isinstance(qos_or_depth, int) or isinstance(qos_or_depth, bool):
        raise TypeError(f"Expected QoSProfile or int, but received {type(qos_or_depth)!r}")
    if qos_or_depth < 0:
        raise ValueError("history depth must be greater than or equal to zero")
    return QoSProfile(depth=qos_or_depth)


DDS_POLICY_NAMES = {
    2: "DURABILITY",
    4: "DEADLINE",
    8: "LIVELINESS",
    11: "RELIABILITY",
    13: "HISTORY",
    21: "LIFESPAN",
}
"""DDS policy identifier (in a status) -> name that ROS prints."""
