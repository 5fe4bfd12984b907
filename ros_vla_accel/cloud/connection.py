"""The client's DEALER socket, which can be thrown away and opened anew, and a wake-up call."""

from __future__ import annotations

import contextlib
import errno
import socket

import zmq
from zmq.utils.monitor import recv_monitor_message

from ros_vla_accel.cloud.endpoint import Endpoint
from ros_vla_accel.cloud.keys import KeyFileError, KeyFolder
from ros_vla_accel.cloud.messages import MAX_DATA_BYTES
from ros_vla_accel.cloud.wire import Buffer

_HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class Connection:
    """All methods but ``wake`` belong to one thread, as the socket does.

    keys: of this robot and its worker, read at each opening so that new ones need no restart;
        None for plain text. Without readable keys there is no socket, and ``problem`` says why.
    """

    def __init__(self, endpoint: Endpoint, keys: KeyFolder | None):
        self._endpoint = endpoint
        self._keys = keys
        self._problem = ""
        self._wake_receive, self._wake_send = socket.socketpair()
        self._wake_receive.setblocking(False)
        self._wake_send.setblocking(False)
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._poller.register(self._wake_receive, zmq.POLLIN)
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._open()

    def _open(self) -> None:
        dealer = self._context.socket(zmq.DEALER)
        if self._keys is not None:
            try:
                pair, worker = self._keys.pair("robot"), self._keys.worker_public()
            except KeyFileError as error:
                self._problem = str(error)
                dealer.close(0)
                return
            dealer.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
            dealer.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
            dealer.setsockopt(zmq.CURVE_SERVERKEY, worker.encode())
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.IMMEDIATE, 1)  # without a connection, sending fails at once
        dealer.setsockopt(zmq.RECONNECT_IVL, 100)
        dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 800)
        # Half a connection must not keep TCP's own patience, which outlasts the fault by far.
        dealer.setsockopt(zmq.CONNECT_TIMEOUT, 1000)
        dealer.setsockopt(zmq.HANDSHAKE_IVL, 1000)
        dealer.setsockopt(zmq.MAXMSGSIZE, MAX_DATA_BYTES)
        dealer.setsockopt(zmq.IPV6, int(self._endpoint.is_ipv6))
        self._monitor = dealer.get_monitor_socket(_HANDSHAKE_FAILED)
        self._poller.register(self._monitor, zmq.POLLIN)
        dealer.connect(str(self._endpoint))
        self._poller.register(dealer, zmq.POLLIN)
        self._socket = dealer

    def reopen(self) -> None:
        """A fresh connection: nothing sent or received on the old one can matter any more."""
        self._close_socket()
        self._open()

    def problem(self) -> str:
        """Why no connection came about since the last call, with what to do; empty if none."""
        while self._monitor is not None and self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            if int(event["value"]) not in (errno.ETIMEDOUT, errno.EAGAIN):  # those are silence
                self._problem = self._explain(int(event["event"]))
        problem, self._problem = self._problem, ""
        return problem

    def _explain(self, event: int) -> str:
        worker = f"worker at {self._endpoint}"
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return (
                f"{worker} does not allow this robot's key: "
                "`ros-vla-accel keys allow` its robot.pub there"
            )
        if self._keys is None:
            return f"{worker} closed the handshake: it wants CURVE keys, this robot has none set"
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return f"{worker} speaks plain text, this robot insists on CURVE"
        return (
            f"{worker} closed the handshake: it is ending, or {self._keys.path / 'worker.pub'} "
            "is not its key"
        )

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._poller.unregister(self._socket)
            self._poller.unregister(self._monitor)
            self._socket.disable_monitor()
            self._socket.close(0)
        self._socket = self._monitor = None

    def send(self, frames: list[Buffer]) -> int | None:
        """Bytes sent, or None when there is no connection. Large frames are not copied."""
        if self._socket is None:
            return None
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        return sum(memoryview(frame).nbytes for frame in frames)

    def receive(self) -> list[bytes] | None:
        """Frames of the next message, or None when there is none."""
        if self._socket is None:
            return None
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def await_writable(self, wanted: bool) -> None:
        """Whether ``wait`` also ends when the connection is up."""
        if self._socket is not None:
            self._poller.modify(self._socket, zmq.POLLIN | (zmq.POLLOUT if wanted else 0))

    def wait(self, timeout_ms: int) -> bool:
        """Until a message or a wake-up comes; True when the awaited connection is up."""
        ready = dict(self._poller.poll(timeout_ms))
        if self._wake_receive.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake_receive.recv(4096)
        return self._socket is not None and bool(ready.get(self._socket, 0) & zmq.POLLOUT)

    def wake(self) -> None:
        """Ends ``wait``; from any thread, never blocks."""
        # A full buffer means that a wake-up is pending; a closed one, that nobody needs it.
        with contextlib.suppress(OSError):
            self._wake_send.send(b"\0")

    def close(self) -> None:
        self._close_socket()
        self._context.term()
        self._wake_receive.close()
        self._wake_send.close()
