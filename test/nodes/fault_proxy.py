"""A TCP proxy before the cloud worker that does to the link what networks do."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import select
import socket
import threading
import time
from collections.abc import Callable

_MORE, _LONG, _COMMAND = 1, 2, 4
_GREETING = 64

Message = list[bytes]


class Zmtp:
    """Cuts one direction of a plain ZMTP 3 connection into its messages, framing included."""

    def __init__(self) -> None:
        self._left = b""
        self._greeting_left = _GREETING
        self._message: Message = []

    def feed(self, content: bytes) -> list[Message]:
        """Whole messages so far; each command counts as one, too, and so does every piece of the
        greeting, in which each side waits for the other."""
        greeting, content = content[: self._greeting_left], content[self._greeting_left :]
        self._greeting_left -= len(greeting)
        self._left += content
        found = [[greeting]] if greeting else []
        while (size := self._size()) is not None and size <= len(self._left):
            part, self._left = self._left[:size], self._left[size:]
            self._message.append(part)
            if part[0] & _COMMAND or not part[0] & _MORE:
                found.append(self._message)
                self._message = []
        return found

    def _size(self) -> int | None:
        start = 9 if self._left and self._left[0] & _LONG else 2
        if len(self._left) < start:
            return None
        return start + int.from_bytes(self._left[1:start], "big")


def is_reply(message: Message) -> bool:
    """Header and data: only answers to requests have both."""
    return len(message) == 2


class Doubled:
    """Every reply twice."""

    def __call__(self, message: Message) -> list[Message]:
        return [message, message] if is_reply(message) else [message]


class Swapped:
    """Every second reply comes after the one that follows it."""

    def __init__(self) -> None:
        self._held: list[Message] = []

    def __call__(self, message: Message) -> list[Message]:
        if not is_reply(message):
            return [message]
        if not self._held:
            self._held = [message]
            return []
        held, self._held = self._held, []
        return [message, *held]


class FaultProxy:
    """Relays connections to ``target`` in a thread, and spoils them as its attributes say.

    cut: swallows everything and takes no connections; those that are open stay so, as they do
        when a cable is pulled. delay_s: on each way. mangle: what becomes of each message from
        the worker, and mangled: how many became something else.
    """

    def __init__(self, target: str):
        self.target = target
        self.cut = False
        self.delay_s = 0.0
        self.mangle: Callable[[Message], list[Message]] | None = None
        self.mangled = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._peers: dict[socket.socket, socket.socket | None] = {}
        self._messages: dict[socket.socket, Zmtp] = {}  # of the workers' ends
        self._due: list[tuple[float, int, socket.socket, bytes]] = []
        self._number = itertools.count()
        self._halve = self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def half_open(self) -> None:
        """The worker's ends of the open connections vanish; the robots' never learn of it."""
        self._halve = True

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        for end in (self._listener, *self._peers):
            end.close()

    def _run(self) -> None:
        while not self._stop:
            if self._halve:
                self._halve = False
                for worker in list(self._messages):
                    robot = self._peers.pop(worker)
                    self._forget(worker)
                    if robot is not None:
                        self._peers[robot] = None
            readable = [*self._peers] if self.cut else [self._listener, *self._peers]
            for ready in select.select(readable, [], [], 0.002)[0]:
                if ready is self._listener:
                    self._accept()
                elif ready in self._peers:
                    self._take(ready)
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, end, content = heapq.heappop(self._due)
                with contextlib.suppress(OSError):
                    if not self.cut:
                        end.sendall(content)

    def _accept(self) -> None:
        robot = self._listener.accept()[0]
        host, port = self.target.removeprefix("tcp://").split(":")
        try:
            worker = socket.create_connection((host, int(port)), 1.0)
        except OSError:
            robot.close()
            return
        for end in (robot, worker):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers |= {robot: worker, worker: robot}
        self._messages[worker] = Zmtp()

    def _take(self, source: socket.socket) -> None:
        content = b""
        with contextlib.suppress(OSError):
            content = source.recv(1 << 20)
        other = self._peers[source]
        if not content:
            self._peers.pop(source)
            self._forget(source)
            if other is not None:
                self._peers.pop(other, None)
                self._forget(other)
        elif other is not None and not self.cut:
            for part in self._spoil(source, content):
                due_s = time.monotonic() + self.delay_s
                heapq.heappush(self._due, (due_s, next(self._number), other, part))

    def _spoil(self, source: socket.socket, content: bytes) -> list[bytes]:
        if source not in self._messages:
            return [content]
        messages = self._messages[source].feed(content)
        if self.mangle is None:
            return [b"".join(message) for message in messages]
        results = [self.mangle(message) for message in messages]
        self.mangled += sum(
            result != [message] for message, result in zip(messages, results, strict=True)
        )
        return [b"".join(message) for result in results for message in result]

    def _forget(self, end: socket.socket) -> None:
        self._messages.pop(end, None)
        end.close()
