"""Warnings (or the user's callbacks) when endpoints of a topic do not fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..dds import library
from .callback_groups import ReentrantCallbackGroup
from .exceptions import NotOffered
from .qos import DDS_POLICY_NAMES, QoSPolicyKind


class QoSIncompatibleInfo:
    """What an incompatible-QoS callback is told."""

    def __init__(self, total: int, change: int, policy: str) -> None:
        self.total_count = total
        self.total_count_change = change
        self.last_policy_kind = QoSPolicyKind.__members__.get(policy, QoSPolicyKind.INVALID)


QoSRequestedIncompatibleQoSInfo = QoSIncompatibleInfo
QoSOfferedIncompatibleQoSInfo = QoSIncompatibleInfo


class _EventCallbacks:
    """Only incompatible QoS is told; other events raise NotImplementedError."""

    _event = ""

    def __init__(
        self,
        *,
        incompatible_qos: Callable[[Any], Any] | None = None,
        use_default_callbacks: bool = True,
        **others: Any,
    ) -> None:
        for name, callback in others.items():
            if callback is not None:
                raise NotOffered(f"{type(self).__name__}({name}=...)")
        self.incompatible_qos = incompatible_qos
        self.use_default_callbacks = use_default_callbacks


class PublisherEventCallbacks(_EventCallbacks):
    """Callbacks for events of a publisher."""


class SubscriptionEventCallbacks(_EventCallbacks):
    """Callbacks for events of a subscription."""


class QosEvents:
    """Watches one endpoint for incompatible peers; executors wait for it like for an entity."""

    def __init__(
        self,
        endpoint: int,
        status: int,
        topic: str,
        logger: Any,
        callbacks: _EventCallbacks,
    ) -> None:
        self.wait_handle = endpoint
        self.callback_group = ReentrantCallbackGroup()
        self._status, self._topic, self._logger = status, topic, logger
        self._callback = callbacks.incompatible_qos
        if self._callback is None and callbacks.use_default_callbacks:
            self._callback = self._warn
        library.watch_status(endpoint, status)

    def _take(self) -> Callable[[], Any] | None:
        status = library.qos_status(self.wait_handle, self._status)
        if status.total_count_change == 0 or self._callback is None:
            return None
        policy = DDS_POLICY_NAMES.get(status.last_policy_id, "INVALID")
        info = QoSIncompatibleInfo(status.total_count, status.total_count_change, policy)
        callback = self._callback
        return lambda: callback(info)

    def _warn(self, info: QoSIncompatibleInfo) -> None:
        policy = info.last_policy_kind.name
        if self._status == library.OFFERED_INCOMPATIBLE_QOS:
            self._logger.warning(
                f"New subscription discovered on topic '{self._topic}', requesting incompatible "
                f"QoS. No messages will be sent to it. Last incompatible policy: {policy}"
            )
        else:
            self._logger.warning(
                f"New publisher discovered on topic '{self._topic}', offering incompatible QoS. "
                f"No messages will be received from it. Last incompatible policy: {policy}"
            )
