"""The few C functions of CycloneDDS that the wheel's Python API wraps too slowly or not at all.

All calls through ctypes release the interpreter lock: a blocked write or wait stops nobody else.
"""

from __future__ import annotations

import ctypes
from typing import Any

from cyclonedds._clayer import ddspy_take
from cyclonedds.core import DDSException, Policy
from cyclonedds.internal import DDS, dds_infinity

INFINITY: int = dds_infinity
ANY_STATE = 0x7F
_UNSIGNED = 2**64 - 1

OFFERED_INCOMPATIBLE_QOS = 3
REQUESTED_INCOMPATIBLE_QOS = 4
PUBLICATION_MATCHED = 11
SUBSCRIPTION_MATCHED = 12
"""Status identifiers of DDS (position in the status mask)."""


class _Sample(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class QosStatus(ctypes.Structure):
    """Offered or requested incompatible QoS."""

    _fields_ = [
        ("total_count", ctypes.c_uint32),
        ("total_count_change", ctypes.c_int32),
        ("last_policy_id", ctypes.c_uint32),
    ]


def _function(name: str, *arguments: Any) -> Any:
    function: Any = getattr(DDS._dll_handle, name)
    prototype = ctypes.CFUNCTYPE(ctypes.c_int32, *arguments)
    return prototype(ctypes.cast(function, ctypes.c_void_p).value or 0)


_int, _pointer = ctypes.c_int32, ctypes.c_void_p
_write = _function("dds_write", _int, _pointer)
_delete = _function("dds_delete", _int)
_create_read_condition = _function("dds_create_readcondition", _int, ctypes.c_uint32)
_create_guard = _function("dds_create_guardcondition", _int)
_set_guard = _function("dds_set_guardcondition", _int, ctypes.c_bool)
_take_guard = _function("dds_take_guardcondition", _int, _pointer)
_create_waitset = _function("dds_create_waitset", _int)
_attach = _function("dds_waitset_attach", _int, _int, ctypes.c_ssize_t)
_detach = _function("dds_waitset_detach", _int, _int)
_wait = _function("dds_waitset_wait", _int, _pointer, ctypes.c_size_t, ctypes.c_int64)
_set_status_mask = _function("dds_set_status_mask", _int, ctypes.c_uint32)
_take_status = _function("dds_take_status", _int, _pointer, ctypes.c_uint32)
_offered = _function("dds_get_offered_incompatible_qos_status", _int, _pointer)
_requested = _function("dds_get_requested_incompatible_qos_status", _int, _pointer)
_acks = _function("dds_wait_for_acks", _int, ctypes.c_int64)
_instance_handle = _function("dds_get_instance_handle", _int, _pointer)


def check(code: int, what: str) -> int:
    """Returns ``code`` if it is no error. Raises DDSException naming ``what``."""
    if code < 0:
        raise DDSException(code, what)
    return code


def write(writer: int, data: bytearray) -> int:
    """Writes an encoded sample; returns a DDS code (negative: error)."""
    first = ctypes.c_char.from_buffer(data)  # also keeps the bytes where they are
    sample = _Sample(ctypes.addressof(first), len(data))
    return int(_write(writer, ctypes.addressof(sample)))


def take(reader: int) -> tuple[bytes, Any] | None:
    """The oldest sample of a reader and its info; None if it has none with data."""
    taken = ddspy_take(reader, ANY_STATE, 1)
    while taken:
        if isinstance(taken, int):
            raise DDSException(taken, f"taking from reader {reader}")
        if taken[0][1].valid_data:
            return taken[0]  # type: ignore[no-any-return]
        taken = ddspy_take(reader, ANY_STATE, 1)
    return None


def wait_for_acks(writer: int, timeout_ns: int) -> bool:
    """Whether all matched readers confirmed everything in time."""
    return bool(_acks(writer, timeout_ns) == 0)


def delete(entity: int) -> None:
    """Deletes an entity; one that is already gone is no error."""
    _delete(entity)


def instance_handle(entity: int) -> int:
    """Instance handle of an endpoint (unsigned 64 bits)."""
    handle = ctypes.c_uint64()
    check(_instance_handle(entity, ctypes.addressof(handle)), "instance handle")
    return handle.value


def read_condition(reader: int) -> int:
    """A condition that holds while the reader has samples."""
    return check(_create_read_condition(reader, ANY_STATE), "creating a read condition")


def watch_status(entity: int, status: int) -> None:
    """Lets an endpoint trigger a wait set when ``status`` changes, and nothing else."""
    check(_set_status_mask(entity, 1 << status), "setting a status mask")


def clear_status(entity: int, status: int) -> None:
    """Resets what `watch_status` watches."""
    value = ctypes.c_uint32()
    check(_take_status(entity, ctypes.addressof(value), 1 << status), "reading a status")


def matched_readers(writer: Any) -> list[Any]:
    """What discovery tells of the readers that a DataWriter has matched."""
    handles = [handle & _UNSIGNED for handle in writer.get_matched_subscriptions()]
    return [p for h in handles if (p := writer.get_matched_subscription_data(h)) is not None]


def matched_writers(reader: Any) -> dict[int, Any]:
    """Publication handle -> what discovery tells of the writers that a DataReader has matched."""
    handles = [handle & _UNSIGNED for handle in reader.get_matched_publications()]
    found = {handle: reader.get_matched_publication_data(handle) for handle in handles}
    return {handle: peer for handle, peer in found.items() if peer is not None}


def user_data(qos: Any) -> dict[str, str]:
    """ROS 2's ``key=value;`` pairs in the USER_DATA of an endpoint or participant."""
    text = ""
    if Policy.Userdata in qos:
        text = qos[Policy.Userdata].data.decode(errors="replace")
    return dict(pair.split("=", 1) for pair in text.split(";") if "=" in pair)


def qos_status(entity: int, status: int) -> QosStatus:
    """Reads and resets an incompatible-QoS status."""
    result = QosStatus()
    get = _offered if status == OFFERED_INCOMPATIBLE_QOS else _requested
    check(get(entity, ctypes.addressof(result)), "reading the QoS status")
    return result


class Guard:
    """A condition that any thread may raise; waiting threads wake at once."""

    def __init__(self, participant: int) -> None:
        self.handle = check(_create_guard(participant), "creating a guard condition")
        self._read = ctypes.c_bool()

    def set(self) -> None:
        _set_guard(self.handle, True)

    def clear(self) -> None:
        _take_guard(self.handle, ctypes.addressof(self._read))

    def delete(self) -> None:
        delete(self.handle)


class WaitSet:
    """Waits for conditions and endpoints; each is attached with a number of the caller's."""

    def __init__(self, participant: int, capacity: int = 64) -> None:
        self.handle = check(_create_waitset(participant), "creating a wait set")
        self._results = (ctypes.c_ssize_t * capacity)()
        self._address = ctypes.addressof(self._results)
        self._capacity = capacity

    def attach(self, entity: int, number: int) -> None:
        check(_attach(self.handle, entity, number), "attaching to a wait set")

    def detach(self, entity: int) -> None:
        """Detaches; an entity that is gone or not attached is no error."""
        _detach(self.handle, entity)

    def wait(self, timeout_ns: int) -> list[int]:
        """Numbers of what is triggered, at most ``capacity`` of them; empty on timeout."""
        count = _wait(self.handle, self._address, self._capacity, timeout_ns)
        check(count, "waiting")
        return self._results[: min(count, self._capacity)]

    def delete(self) -> None:
        delete(self.handle)
