"""Whether the chunk in play was made with fewer activation bits than the motion needs by now."""

from __future__ import annotations

from collections.abc import Sequence

from ros_vla_accel.contracts import ACTIVATION_BITS, executed_width

REMEMBERED = 8
"""Chunks whose width is kept: those that may still come into play."""


NEVER_NS = 2**63


class WidthRise:
    """Asks for a new chunk when the commanded width rises above that of the chunk in play.

    Once per chunk: a width that swings, or a policy that answers with fewer bits than it was
    asked for, must not keep it busy. Widths are compared as ``widths`` executes them, each at the
    next wider one: a rise that changes nothing is none. A chunk of unknown width is let be.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self._widths = tuple(sorted(widths))
        self._commanded = ACTIVATION_BITS[-1]
        self._needed_ns = 0
        self._made: dict[int, int] = {}
        self._served: set[int] = set()

    def command(self, bits: int, needed_ns: int = 0) -> None:
        """The newest commanded width, and from when on it is needed; 0: now."""
        self._commanded, self._needed_ns = bits, needed_ns

    def made(self, request_id: int, bits: int) -> None:
        """A chunk was seen, made with so many bits."""
        self._made[request_id] = bits
        while len(self._made) > REMEMBERED:
            oldest = next(iter(self._made))
            del self._made[oldest]
            self._served.discard(oldest)

    def asks(self, request_id: int, due_ns: int = NEVER_NS) -> str:
        """Why the chunk of this request is to be replaced; empty if it is not.

        due_ns: when the next chunk comes anyway; what is needed after that need not be hurried.
        """
        bits = self._made.get(request_id)
        if bits is None or request_id in self._served or self._needed_ns >= due_ns:
            return ""
        needed = executed_width(self._commanded, self._widths)
        if needed <= executed_width(bits, self._widths):
            return ""
        return f"{needed} bits needed, chunk in play has {bits}"

    def serve(self, request_id: int, due_ns: int = NEVER_NS) -> bool:
        """An inference at the commanded width was started over this chunk; whether it asked."""
        asked = bool(self.asks(request_id, due_ns))
        if asked:
            self._served.add(request_id)
        return asked
