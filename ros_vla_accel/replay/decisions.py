"""Decisions as lines of JSON, and the comparison of two runs of them."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

CONTEXT = 3
"""Equal lines shown before a difference."""


def line(decision: dict[str, Any]) -> str:
    """One decision as JSON, without a newline; NaN becomes null."""
    return json.dumps(
        {key: _plain(value) for key, value in decision.items()}, separators=(",", ":")
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class DifferenceError(Exception):
    """The first difference from the expected decisions; the text shows it in context."""


class Expectation:
    """Expected decisions, one line each, against which a run is held as it goes.

    tolerance: floats may differ by so much, absolutely or as a share of the larger one; 0 means
    that lines must be the same bytes.
    """

    def __init__(self, path: str | Path, tolerance: float = 0.0) -> None:
        self._path = Path(path)
        self._tolerance = tolerance
        self._lines: Iterator[str] = iter(self._path.open())
        self._recent: deque[str] = deque(maxlen=CONTEXT)
        self._number = 0

    def check(self, got: str) -> None:
        """Takes the next line of the run. Raises DifferenceError."""
        self._number += 1
        expected = next(self._lines, None)
        if expected is None:
            raise self._difference("(end)", got, "the run goes on where the file ends")
        expected = expected.rstrip("\n")
        if expected != got:
            differing = self._differing(expected, got)
            if differing:
                raise self._difference(expected, got, differing)
        self._recent.append(got)

    def finish(self) -> None:
        """The run is over. Raises DifferenceError if more was expected."""
        expected = next(self._lines, None)
        if expected is not None:
            self._number += 1
            rest = 1 + sum(1 for _ in self._lines)
            raise self._difference(
                expected.rstrip("\n"), "(end)", f"the run ends {rest} decisions too early"
            )

    def _differing(self, expected: str, got: str) -> str:
        try:
            before, now = json.loads(expected), json.loads(got)
        except ValueError:
            return "the expected line is no JSON"
        keys = [
            key
            for key in chain(before, (key for key in now if key not in before))
            if not self._equal(before.get(key), now.get(key))
        ]
        if not keys and self._tolerance == 0:
            return "same values, other form"
        return ", ".join(f"{key}: {before.get(key)!r} -> {now.get(key)!r}" for key in keys)

    def _equal(self, a: Any, b: Any) -> bool:
        if isinstance(a, list) and isinstance(b, list):
            return len(a) == len(b) and all(map(self._equal, a, b))
        if isinstance(a, float) or isinstance(b, float):
            if not (isinstance(a, float | int) and isinstance(b, float | int)):
                return False
            return math.isclose(a, b, rel_tol=self._tolerance, abs_tol=self._tolerance)
        return bool(a == b)

    def _difference(self, expected: str, got: str, what: str) -> DifferenceError:
        context = "".join(f"    {text}\n" for text in self._recent)
        return DifferenceError(
            f"{self._path}:{self._number}: {what}\n{context}  - {expected}\n  + {got}"
        )
