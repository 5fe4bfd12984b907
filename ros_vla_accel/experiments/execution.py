"""Plays a policy's chunks by the executor's rule, under a virtual clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ros_vla_accel.contracts import ActionChunk, InferenceRequest, Observation, Policy
from ros_vla_accel.control.chunk_buffer import ChunkBuffer
from ros_vla_accel.experiments.width import Width
from ros_vla_accel.sim.env import JointSample


@dataclass(frozen=True)
class ExecutedRow:
    """One control period.

    action: (A,). seam: the first row of a chunk that replaces a running one. starved: no row was
    due, the arm holds.
    """

    action: np.ndarray
    seam: bool
    starved: bool


class ChunkPlayer:
    """Asks a policy for chunks and hands out the row that is due, through ``ChunkBuffer``.

    A new chunk is asked for once ``replan_rows`` rows of the one in play have been executed, or
    when there is none, or, once per chunk, when the width rises above that of the one in play; it
    arrives ``latency_s`` later, rounded up to whole periods. Until the first chunk arrives, and
    when the rows run out, the arm holds: velocity zero, gripper as it was.

    width: of the inferences; 16 bits by default. Chunks are noted in ``bits``, and how many of
    them were asked for early in ``early``.
    """

    def __init__(self, policy: Policy, latency_s: float = 0.0, width: Width | None = None) -> None:
        if latency_s < 0:
            raise ValueError(f"latency_s {latency_s} must not be negative")
        self.policy = policy
        self.delay_steps = math.ceil(latency_s / policy.spec.period_s - 1e-9)
        self.inference_s: list[float] = []
        self.bits: list[int] = []
        self.early = 0
        self.width = width or Width(16)
        self._requests = 0

    def reset(self, episode_id: int, seed: int, gripper: float = -1.0) -> None:
        """Starts an episode; ``seed`` fixes its noise, ``gripper`` is held until the first row."""
        spec = self.policy.spec
        self.policy.reset(episode_id)
        self._episode_id, self._seed, self._gripper = episode_id, seed, gripper
        self._buffer = ChunkBuffer(len(spec.action_names), spec.period_s)
        self._coming: tuple[int, ActionChunk] | None = None
        self._asked = 0
        self._stamp_ns = self._raised_ns = -1

    def act(self, step: int, observe: Callable[[int], Observation]) -> ExecutedRow:
        """The row due at ``step``; ``observe(stamp_ns)`` is called when a chunk is asked for."""
        spec, buffer = self.policy.spec, self._buffer
        now_ns = step * round(spec.period_s * 1e9)
        running = buffer.row(now_ns) is not None
        due = not running or buffer.executed_rows > spec.replan_rows
        if self._coming is None and (due or self._width_rose()):
            self.early += not due
            self._coming = (step + self.delay_steps, self._ask(observe(now_ns)))
        if self._coming is not None and step >= self._coming[0]:
            buffer.offer(self._coming[1], now_ns)
            self._coming = None
        row = buffer.row(now_ns)
        if row is None:
            hold = np.zeros(len(spec.action_names), np.float32)
            hold[-1] = self._gripper
            return ExecutedRow(hold, False, True)
        self._gripper = float(row.action[-1])
        seam = running and row.chunk.stamp_ns != self._stamp_ns
        self._stamp_ns = row.chunk.stamp_ns
        return ExecutedRow(row.action.astype(np.float32), seam, False)

    def moved(self, samples: Sequence[JointSample], action: np.ndarray, step: int) -> None:
        """Joint states of the period in which ``action`` was executed at ``step``."""
        chunk, row = self._buffer.in_play, 0
        if chunk is not None:
            row = (step * chunk.period_ns - chunk.stamp_ns) // chunk.period_ns
        self.width.moved(samples, action, chunk if row < self.policy.spec.horizon else None, row)

    def _width_rose(self) -> bool:
        """Whether the chunk in play has too few bits, noticed for the first time."""
        chunk = self._buffer.in_play
        if chunk is None or chunk.stamp_ns == self._raised_ns:
            return False
        rows = self.policy.spec.replan_rows + 1 + self.delay_steps
        if not self.width.rose_above(chunk, chunk.stamp_ns + rows * chunk.period_ns):
            return False
        self._raised_ns = chunk.stamp_ns
        return True

    def _ask(self, observation: Observation) -> ActionChunk:
        self._requests += 1
        self._asked += 1
        request = InferenceRequest(
            observation,
            request_id=self._requests,
            episode_id=self._episode_id,
            seed=self._seed + self._asked,
            activation_bits=self.width.bits,
            previous=self._buffer.in_play,
            executed_rows=self._buffer.executed_rows,
        )
        chunk = self.policy.infer([request])[0]
        self.bits.append(chunk.activation_bits)
        self.inference_s.append(chunk.timings_s.get("total", math.nan))
        return chunk
