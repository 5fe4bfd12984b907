from __future__ import annotations

import numpy as np
import pytest

from ros_vla_accel.contracts import ActionChunk, InferenceRequest, Observation, PolicySpec
from ros_vla_accel.experiments.execution import ChunkPlayer

PERIOD_NS = 50_000_000


class Counting:
    """Rows say which step they belong to: vx = stamp in steps + row."""

    spec = PolicySpec("counting", (), ("j0",), ("vx", "vy", "vz", "gripper"), 16, 0.05, "any")

    def __init__(self) -> None:
        self.asked: list[InferenceRequest] = []

    def infer(self, requests: list[InferenceRequest]) -> list[ActionChunk]:
        self.asked += requests
        return [self._chunk(request) for request in requests]

    def _chunk(self, request: InferenceRequest) -> ActionChunk:
        stamp = request.observation.stamp_ns
        actions = np.zeros((16, 4), np.float32)
        actions[:, 0] = stamp // PERIOD_NS + np.arange(16)
        actions[:, 3] = 1.0
        return ActionChunk(actions, 0.05, stamp, request.request_id, request.episode_id, "edge")

    def reset(self, episode_id: int) -> None:
        pass


def look(stamp_ns: int) -> Observation:
    return Observation({}, np.zeros(1, np.float32), "go", stamp_ns)


def play(latency_s: float, steps: int = 40) -> tuple[Counting, list[float], list[int], list[int]]:
    policy = Counting()
    player = ChunkPlayer(policy, latency_s)
    player.reset(episode_id=1, seed=10)
    rows = [player.act(step, look) for step in range(steps)]
    return (
        policy,
        [float(row.action[0]) for row in rows],
        [step for step, row in enumerate(rows) if row.seam],
        [step for step, row in enumerate(rows) if row.starved],
    )


def test_each_row_is_played_in_the_period_that_it_belongs_to() -> None:
    _, actions, _, starved = play(0.0)
    assert actions == list(range(40))
    assert starved == []


def test_a_new_chunk_is_asked_for_after_eight_executed_rows() -> None:
    policy, _, seams, _ = play(0.0)
    assert [r.observation.stamp_ns // PERIOD_NS for r in policy.asked] == [0, 8, 16, 24, 32]
    assert seams == [8, 16, 24, 32]


def test_rows_that_passed_while_a_chunk_was_under_way_are_skipped() -> None:
    policy, actions, seams, starved = play(0.1)
    assert starved == [0, 1]
    assert actions[2:] == list(range(2, 40))
    assert [r.observation.stamp_ns // PERIOD_NS for r in policy.asked] == [0, 10, 20, 30]
    assert seams == [12, 22, 32]


def test_when_the_rows_run_out_the_arm_holds_and_keeps_its_grip() -> None:
    policy = Counting()
    player = ChunkPlayer(policy, latency_s=0.6)
    player.reset(episode_id=1, seed=0, gripper=0.5)
    assert player.act(0, look).action.tolist() == [0, 0, 0, 0.5]
    rows = [player.act(step, look) for step in range(1, 30)]
    holds = [row.action.tolist() for row in rows if row.starved]
    assert holds[-1] == [0, 0, 0, 1]


def test_seeds_differ_between_inferences_and_repeat_between_runs() -> None:
    first, again = play(0.0)[0], play(0.0)[0]
    seeds = [request.seed for request in first.asked]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [request.seed for request in again.asked]


def test_a_negative_latency_is_refused() -> None:
    with pytest.raises(ValueError, match="latency_s -1 must not be negative"):
        ChunkPlayer(Counting(), -1)
