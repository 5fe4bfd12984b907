"""Loggers that write ROS console lines to standard error."""

from __future__ import annotations

import sys
import threading
import time
from enum import IntEnum
from typing import Any


class LoggingSeverity(IntEnum):
    UNSET = 0
    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    FATAL = 50


_levels: dict[str, LoggingSeverity] = {"": LoggingSeverity.INFO}
_lock = threading.Lock()
_COLORS = {
    LoggingSeverity.DEBUG: "\033[32m",
    LoggingSeverity.WARN: "\033[33m",
    LoggingSeverity.ERROR: "\033[31m",
    LoggingSeverity.FATAL: "\033[31m",
}


def set_level(name: str, level: LoggingSeverity | int) -> None:
    """Sets the level of a logger and of its children; ``""`` is the root."""
    _levels[name] = LoggingSeverity(level)


def effective_level(name: str) -> LoggingSeverity:
    """Level of the logger or of its nearest ancestor that has one."""
    while name:
        level = _levels.get(name, LoggingSeverity.UNSET)
        if level != LoggingSeverity.UNSET:
            return level
        name = name.rpartition(".")[0]
    return _levels[""]


class RcutilsLogger:
    """rclpy's logger: levels, ``once``, ``skip_first``, ``throttle_duration_sec``."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._once: set[Any] = set()
        self._last: dict[Any, float] = {}
        self._sink: Any = None

    def get_child(self, name: str) -> RcutilsLogger:
        if not name:
            raise ValueError("Child logger name must not be empty.")
        child = RcutilsLogger(f"{self.name}.{name}" if self.name else name)
        child._sink = self._sink
        return child

    def set_level(self, level: LoggingSeverity | int) -> None:
        set_level(self.name, level)

    def get_effective_level(self) -> LoggingSeverity:
        return effective_level(self.name)

    def is_enabled_for(self, severity: LoggingSeverity | int) -> bool:
        return severity >= effective_level(self.name)

    def log(
        self,
        message: str,
        severity: LoggingSeverity | int,
        name: str | None = None,
        *,
        once: bool = False,
        skip_first: bool = False,
        throttle_duration_sec: float = 0.0,
        throttle_time_source_type: Any = None,
        _depth: int = 1,
    ) -> bool:
        """Writes a line; False if the level or a filter holds it back.

        Filters are remembered per calling line, as in rclpy. Throttling uses the steady clock
        unless ``throttle_time_source_type`` is a clock.
        """
        severity = LoggingSeverity(severity)
        if severity < effective_level(self.name):
            return False
        if once or skip_first or throttle_duration_sec:
            frame = sys._getframe(_depth)
            place = (frame.f_code, frame.f_lineno)
            if once:
                if place in self._once:
                    return False
                self._once.add(place)
            if skip_first and place not in self._last:
                self._last[place] = float("-inf")
                return False
            if throttle_duration_sec:
                now = time.monotonic()
                if throttle_time_source_type is not None:
                    now = throttle_time_source_type.now().nanoseconds / 1e9
                last = self._last.get(place, float("-inf"))
                if last <= now < last + throttle_duration_sec:
                    return False
                self._last[place] = now
        _write(severity, name or self.name, str(message))
        if self._sink is not None:
            self._sink(severity, name or self.name, str(message))
        return True

    def debug(self, message: str, **options: Any) -> bool:
        return self.log(message, LoggingSeverity.DEBUG, _depth=2, **options)

    def info(self, message: str, **options: Any) -> bool:
        return self.log(message, LoggingSeverity.INFO, _depth=2, **options)

    def warning(self, message: str, **options: Any) -> bool:
        return self.log(message, LoggingSeverity.WARN, _depth=2, **options)

    warn = warning

    def error(self, message: str, **options: Any) -> bool:
        return self.log(message, LoggingSeverity.ERROR, _depth=2, **options)

    def fatal(self, message: str, **options: Any) -> bool:
        return self.log(message, LoggingSeverity.FATAL, _depth=2, **options)


def _write(severity: LoggingSeverity, name: str, message: str) -> None:
    line = f"[{severity.name}] [{time.time():.9f}] [{name}]: {message}"
    stream = sys.stderr
    if stream.isatty():
        color = _COLORS.get(severity, "")
        line = f"{color}{line}\033[0m" if color else line
    with _lock:
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            pass  # A closed terminal must not stop a node.


_root = RcutilsLogger()


def get_logger(name: str) -> RcutilsLogger:
    """A logger by name. Raises ValueError for an empty name."""
    if not name:
        raise ValueError("Logger name must not be empty.")
    return RcutilsLogger(name)


def get_logging_severity_from_string(log_severity: str) -> LoggingSeverity:
    return LoggingSeverity[log_severity.upper()]


def set_logger_level(name: str, level: int, detailed_error: bool = False) -> bool:
    set_level(name, level)
    return True


def get_logger_level(name: str) -> LoggingSeverity:
    return _levels.get(name, LoggingSeverity.UNSET)


def get_logger_effective_level(name: str) -> LoggingSeverity:
    return effective_level(name)
