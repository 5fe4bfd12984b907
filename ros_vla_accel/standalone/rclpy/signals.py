"""SIGINT and SIGTERM end all contexts, at once even while a thread waits inside CycloneDDS."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from enum import IntFlag
from types import FrameType
from typing import Any

from .context import shutdown_all


class SignalHandlerOptions(IntFlag):
    NO = 0
    SIGINT = 1
    SIGTERM = 2
    ALL = 3


_previous: dict[int, Any] = {}
_wakers: list[Callable[[], None]] = []
_pipe: tuple[int, int] | None = None


def add_waker(wake: Callable[[], None]) -> None:
    """``wake`` is called (from a helper thread) after each signal."""
    _wakers.append(wake)


def remove_waker(wake: Callable[[], None]) -> None:
    with contextlib.suppress(ValueError):
        _wakers.remove(wake)


def _handle(number: int, frame: FrameType | None) -> None:
    shutdown_all()
    previous = _previous.get(number)
    if callable(previous):
        previous(number, frame)


def _listen(descriptor: int) -> None:
    """Wakes waiting executors: Python runs a handler only once the main thread leaves C."""
    while os.read(descriptor, 64):
        for wake in list(_wakers):
            wake()


def watch_signals() -> None:
    """Lets signals wake executors, whoever handles them; only possible in the main thread."""
    global _pipe
    if _pipe is not None or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    _pipe = (reader, writer)
    threading.Thread(target=_listen, args=(reader,), name="signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)


def install_signal_handlers(
    options: SignalHandlerOptions = SignalHandlerOptions.ALL,
) -> None:
    """Does nothing outside the main thread, where Python allows no handlers."""
    if threading.current_thread() is not threading.main_thread():
        return
    wanted = {
        signal.SIGINT: SignalHandlerOptions.SIGINT,
        signal.SIGTERM: SignalHandlerOptions.SIGTERM,
    }
    for number, option in wanted.items():
        if options & option and number not in _previous:
            _previous[number] = signal.signal(number, _handle)


def uninstall_signal_handlers() -> None:
    """Gives the signals back to whoever had them."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number, previous in list(_previous.items()):
        if signal.getsignal(number) is _handle:
            signal.signal(number, previous)
        del _previous[number]


def get_current_signal_handlers_options() -> SignalHandlerOptions:
    options = SignalHandlerOptions.NO
    if signal.SIGINT in _previous:
        options |= SignalHandlerOptions.SIGINT
    if signal.SIGTERM in _previous:
        options |= SignalHandlerOptions.SIGTERM
    return options
