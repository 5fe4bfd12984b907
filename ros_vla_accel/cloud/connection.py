"""The client's DEALER socket, which can be thrown away and opened anew, and a wake-up call."""

from __future__ import annotations

import contextlib
import socket

import zmq

from ros_vla_accel.cloud.endpoint import Endpoint
from ros_vla_accel.cloud.messages import MAX_DATA_BYTES
from ros_vla_accel.cloud.wire import Buffer


class Connection:
    """All methods but ``wake`` belong to one thread, as the socket does."""

    def __init__(self, endpoint: Endpoint):
        self._endpoint = endpoint
        self._wake_receive, self._wake_send = socket.socketpair()
        self._wake_receive.setblocking(False)
        self._wake_send.setblocking(False)
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._poller.register(self._wake_receive, zmq.POLLIN)
        self._socket = self._open()

    def _open(self) -> zmq.Socket[bytes]:
        dealer = self._context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.IMMEDIATE, 1)  # without a connection, sending fails at once
        dealer.setsockopt(zmq.RECONNECT_IVL, 100)
        dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 800)
        # Half a connection must not keep TCP's own patience, which outlasts the fault by far.
        dealer.setsockopt(zmq.CONNECT_TIMEOUT, 1000)
        dealer.setsockopt(zmq.HANDSHAKE_IVL, 1000)
        dealer.setsockopt(zmq.MAXMSGSIZE, MAX_DATA_BYTES)
        dealer.setsockopt(zmq.IPV6, int(self._endpoint.is_ipv6))
        dealer.connect(str(self._endpoint))
        self._poller.register(dealer, zmq.POLLIN)
        return dealer

    def reopen(self) -> None:
        """A fresh connection: nothing sent or received on the old one can matter any more."""
        self._poller.unregister(self._socket)
        self._socket.close(0)
        self._socket = self._open()

    def send(self, frames: list[Buffer]) -> int | None:
        """Bytes sent, or None when there is no connection. Large frames are not copied."""
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        return sum(memoryview(frame).nbytes for frame in frames)

    def receive(self) -> list[bytes] | None:
        """Frames of the next message, or None when there is none."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def await_writable(self, wanted: bool) -> None:
        """Whether ``wait`` also ends when the connection is up."""
        self._poller.modify(self._socket, zmq.POLLIN | (zmq.POLLOUT if wanted else 0))

    def wait(self, timeout_ms: int) -> bool:
        """Until a message or a wake-up comes; True when the awaited connection is up."""
        ready = dict(self._poller.poll(timeout_ms))
        if self._wake_receive.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake_receive.recv(4096)
        return bool(ready.get(self._socket, 0) & zmq.POLLOUT)

    def wake(self) -> None:
        """Ends ``wait``; from any thread, never blocks."""
        # A full buffer means that a wake-up is pending; a closed one, that nobody needs it.
        with contextlib.suppress(OSError):
            self._wake_send.send(b"\0")

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()
        self._wake_receive.close()
        self._wake_send.close()
