"""Which action row is in force now: chunks in time, newest observation first, blended seams."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ros_vla_accel.contracts import ActionChunk
from ros_vla_accel.kinematics.joints import FloatArray

DROPS = (
    "older_episode",
    "older_observation",
    "expired",
    "future",
    "not_finite",
    "shape",
    "period",
)
"""Codes under which a refused chunk is counted."""

LONGEST_CHUNK_S = 5.0
"""A longer chunk would move the arm for that long after its policy died."""


@dataclass(frozen=True)
class Verdict:
    """What became of an offered chunk. code: "accepted", "stop" or one of ``DROPS``."""

    accepted: bool
    code: str
    reason: str


@dataclass(frozen=True)
class Row:
    """The row in force: ``action`` (A,) is row ``index`` of ``chunk``, blended at a seam."""

    index: int
    action: FloatArray
    chunk: ActionChunk


@dataclass
class _Playing:
    """A chunk in play, and the one under it from which it is still blending."""

    chunk: ActionChunk
    under: _Playing | None
    first_row: int | None = None
    last_row: int = -1
    executed: int = 0

    def index(self, now_ns: int) -> int:
        return (now_ns - self.chunk.stamp_ns) // self.chunk.period_ns


class ChunkBuffer:
    """Holds the chunk in play; every time is ``now_ns`` on the clock of the chunks' stamps.

    Row k of a chunk is in force during [stamp + k*period, stamp + (k+1)*period): rows are
    skipped when time has passed, never caught up. The newest observation wins whatever its
    source, so a late cloud reply cannot undo an edge chunk made from a newer look. A chunk that
    replaces a running one of its episode is blended in over ``blend_rows`` rows: jumps at seams
    are what shakes an arm. Between episodes nothing is blended, the older one's rows are void.

    A clock that goes back by more than a period (simulator reset, bag loop) empties the buffer.
    Not thread-safe; ``Executor`` locks.
    """

    def __init__(self, action_size: int, period_s: float = 0.05, blend_rows: int = 3) -> None:
        if action_size < 1 or blend_rows < 0 or not period_s > 0:
            raise ValueError(
                f"action_size {action_size} and period_s {period_s} must be positive and "
                f"blend_rows {blend_rows} not negative"
            )
        self.action_size = action_size
        self.blend_rows = blend_rows
        self.episode_id = 0
        self.counts: Counter[str] = Counter()
        self.clock_resets = 0
        self.wanted = False
        self.empty_because = "no chunk since start"
        self._period_ns = round(period_s * 1e9)
        self._playing: _Playing | None = None
        self._newest_ns: int | None = None
        self._cleared_ns: int | None = None
        self._now_ns: int | None = None

    @property
    def in_play(self) -> ActionChunk | None:
        """The newest accepted chunk, until it is stopped or cleared; it may have no row left."""
        return self._playing.chunk if self._playing else None

    @property
    def executed_rows(self) -> int:
        """Rows of the chunk in play that were in force at some call of ``row``."""
        return self._playing.executed if self._playing else 0

    @property
    def dropped(self) -> int:
        """Chunks refused so far."""
        return sum(self.counts[code] for code in DROPS)

    def remaining_rows(self, now_ns: int) -> int:
        """Rows of the chunk in play that come after the one in force at ``now_ns``."""
        if self._playing is None:
            return 0
        horizon = self._playing.chunk.horizon
        return min(max(horizon - 1 - self._playing.index(now_ns), 0), horizon)

    def offer(self, chunk: ActionChunk, now_ns: int) -> Verdict:
        """Accepts or drops a chunk, and counts it.

        Accepted: finite (H, A) rows of the control period, of an episode that is not older than
        the current one, from an observation newer than any accepted in it and at most one period
        ahead of now, with its end still to come. A well-formed chunk of a newer episode makes
        that episode current even if it comes too late to be played. Zero rows stop the current
        or a newer episode.
        """
        now_ns = self.advance(now_ns)
        verdict = self._judge(chunk, now_ns)
        self.counts[verdict.code] += 1
        return verdict

    def _judge(self, chunk: ActionChunk, now_ns: int) -> Verdict:
        bad = self._malformed(chunk)
        if bad is not None:
            return bad
        if chunk.episode_id < self.episode_id:
            return _drop(
                "older_episode",
                f"episode {chunk.episode_id} is over; now {self.episode_id}",
            )
        if chunk.horizon == 0:
            self.episode_id = chunk.episode_id
            self._end("stopped by the policy", now_ns, wanted=False)
            return Verdict(True, "stop", "stop")
        ahead_ns = chunk.stamp_ns - now_ns
        if ahead_ns > self._period_ns:
            return _drop(
                "future",
                f"observation is {ahead_ns * 1e-9:.3f} s ahead of the clock; "
                "set use_sim_time alike on all nodes",
            )
        if chunk.episode_id > self.episode_id:
            self.episode_id = chunk.episode_id
            self._playing = None
            self._newest_ns = self._cleared_ns
            self.wanted = True
            self.empty_because = "first chunk of the episode came too late"
        if self._newest_ns is not None and chunk.stamp_ns <= self._newest_ns:
            return _drop(
                "older_observation",
                f"observation is {(self._newest_ns - chunk.stamp_ns) * 1e-9:.3f} s older than the "
                "newest accepted",
            )
        late_ns = now_ns - (chunk.stamp_ns + chunk.horizon * chunk.period_ns)
        if late_ns >= 0:
            return _drop("expired", f"last row ended {late_ns * 1e-9:.3f} s ago")
        under = self._playing
        if under is not None and under.first_row is None:
            under = under.under  # It never moved the arm: the seam is with the one that did.
        self._playing = _Playing(chunk, under)
        self._newest_ns = chunk.stamp_ns
        self.wanted = True
        return Verdict(True, "accepted", f"{chunk.source} chunk {chunk.request_id}")

    def _malformed(self, chunk: ActionChunk) -> Verdict | None:
        actions = chunk.actions
        if actions.ndim != 2 or (actions.shape[0] and actions.shape[1] != self.action_size):
            return _drop(
                "shape", f"actions have shape {actions.shape}, not (rows, {self.action_size})"
            )
        period_s = self._period_ns * 1e-9
        if actions.shape[0] and not abs(chunk.period_s - period_s) <= 0.01 * period_s:
            return _drop(
                "period",
                f"a row lasts {chunk.period_s} s, the executor's period_s is {period_s}; "
                "set both alike, in seconds",
            )
        if actions.shape[0] * period_s > LONGEST_CHUNK_S:
            return _drop("period", f"{actions.shape[0]} rows last over {LONGEST_CHUNK_S} s")
        if not np.isfinite(actions).all():
            return _drop("not_finite", "actions hold NaN or infinity")
        return None

    def row(self, now_ns: int) -> Row | None:
        """The row in force at ``now_ns``, or None if there is none; counts it as executed."""
        now_ns = self.advance(now_ns)
        playing = self._playing
        if playing is None:
            return None
        row = self._row(playing, now_ns)
        if row is not None and row.chunk is playing.chunk and row.index != playing.last_row:
            playing.last_row = row.index
            playing.executed += 1
        return row

    def _row(self, playing: _Playing, now_ns: int) -> Row | None:
        chunk = playing.chunk
        index = playing.index(now_ns)
        if index < 0:  # Not due yet, by the tolerated clock difference.
            return self._row(playing.under, now_ns) if playing.under else None
        if index >= chunk.horizon:
            return None
        action = chunk.actions[index].astype(np.float64)
        if playing.first_row is None:
            playing.first_row = index
        blended = index - playing.first_row
        if playing.under is not None and blended < self.blend_rows:
            old = self._row(playing.under, now_ns)
            if old is not None:
                weight = (blended + 1) / (self.blend_rows + 1)
                return Row(index, (1 - weight) * old.action + weight * action, chunk)
        playing.under = None
        return Row(index, action, chunk)

    def advance(self, now_ns: int) -> int:
        """Notes the time and returns the one to use, which never goes back within a period.

        Further back is a reset clock. Called by every other method; call it in each control
        period, or a reset may go unnoticed until the old timeline has come round again.
        """
        latest_ns = self._now_ns
        if latest_ns is None or now_ns >= latest_ns - self._period_ns:
            self._now_ns = now_ns if latest_ns is None else max(now_ns, latest_ns)
            return self._now_ns
        self._now_ns = now_ns
        self.clock_resets += 1
        self._end(f"clock went back {(latest_ns - now_ns) * 1e-9:.3f} s", now_ns, wanted=False)
        self._newest_ns = self._cleared_ns = None
        return now_ns

    def clear(self, because: str, now_ns: int, wanted: bool) -> None:
        """Ends the chunk in play; only observations made after ``now_ns`` are accepted next.

        wanted: whether a chunk is missed from now on (a hold then counts as starved).
        """
        now_ns = self.advance(now_ns)
        self._end(because, now_ns, wanted)
        self._cleared_ns = now_ns

    def _end(self, because: str, now_ns: int, wanted: bool) -> None:
        self._playing = None
        self._newest_ns = now_ns
        self.wanted = wanted
        self.empty_because = because


def _drop(code: str, reason: str) -> Verdict:
    return Verdict(False, code, reason)
