"""Strategies in closed loop, with emulated link and compute: what takes how long, and to whom."""

from itertools import pairwise

import numpy as np
import pytest

from ros_vla_accel.experiments.emulated_link import STALL_SHARE, EmulatedLink
from ros_vla_accel.experiments.offloading import Setting, World
from ros_vla_accel.experiments.offloading_strategies import BaselineStrategy, RapidStrategy
from ros_vla_accel.partition.baselines import CloudOnly, EdgeOnly, UncertaintyThreshold
from ros_vla_accel.partition.route import RouteConfig
from ros_vla_accel.partition.triggers import TriggerConfig
from ros_vla_accel.policies import reference
from ros_vla_accel.sim.distractors import CLEAR_M, COUNT, place
from ros_vla_accel.sim.env import SawyerEnv

SEED = 30_000
PATIENT = np.inf
"""A threshold that no disagreement passes; 0 is passed by all."""


@pytest.fixture(scope="module")
def play():
    """Runs one episode of drawer-open."""
    full, light = reference(threads=1), reference(quantize="w4ax", steps=4, threads=1)
    env = SawyerEnv("drawer-open")
    yield lambda strategy, setting=Setting(), seed=SEED: World(  # noqa: B008
        env, full, light, setting, seed
    ).run(strategy)
    env.close()


def rapid(**route) -> RapidStrategy:
    return RapidStrategy(TriggerConfig(), RouteConfig(mode="critical", **route))


def uncertain(threshold: float) -> BaselineStrategy:
    return BaselineStrategy(lambda: UncertaintyThreshold(threshold))


def test_edge_only_holds_while_it_thinks_and_then_plays_eight_rows(play):
    episode = play(BaselineStrategy(EdgeOnly, stop_and_think=True, full=True))
    assert episode.success
    assert set(np.round(episode.latency_s, 6)) == {0.782}
    assert episode.held_steps >= 16 * (len(episode.latency_s))
    assert len(episode.age_s) <= 8 * (episode.replans + 1)
    assert min(episode.age_s) >= 0.782


def test_cloud_only_takes_the_round_trip_and_the_worker_s_time(play):
    for round_trip_s in (0.02, 0.08):
        episode = play(BaselineStrategy(CloudOnly), Setting(round_trip_s=round_trip_s))
        median_s = float(np.median(episode.latency_s))
        assert median_s == pytest.approx(0.083 + round_trip_s, rel=0.15)
        assert (episode.edge_s, episode.fallbacks) == (0, 0)
        assert episode.cloud_calls == episode.replans


def test_uncertainty_pays_for_four_chunks_and_then_for_the_cloud(play):
    calm = play(uncertain(PATIENT))
    assert calm.cloud_calls == 0
    assert set(np.round(calm.latency_s, 6)) == {round(1.5 * 0.139, 6)}
    assert len(calm.disagreements) in (calm.replans, calm.replans - 1)
    worried = play(uncertain(0.0))
    assert worried.cloud_calls >= len(worried.disagreements) > 0
    assert np.median(worried.latency_s) > 1.5 * 0.139 + 0.083


def test_rapid_asks_the_cloud_when_preempted_and_the_edge_otherwise(play):
    episode = play(rapid())
    assert episode.success
    assert episode.preemptions > 0
    assert episode.cloud_calls >= episode.preemptions
    routine = episode.replans - episode.cloud_calls
    assert episode.edge_inferences == routine + episode.fallbacks
    never = play(rapid(preempt=False))
    assert (never.preemptions, never.cloud_calls) == (0, 0)


def test_reuse_asks_less_often_and_no_row_is_missed(play):
    plain, reuse = play(rapid()), play(rapid(reuse=True))
    assert reuse.success
    assert reuse.replans / reuse.steps < plain.replans / plain.steps
    assert max(reuse.age_s) < 0.8
    assert reuse.held_steps == plain.held_steps


def test_the_same_scene_gives_the_same_episode(play):
    for make in (rapid, lambda: uncertain(1e-4)):
        assert play(make()) == play(make())


def test_link_stands_still_for_its_share_of_the_time_and_keeps_what_waits():
    link = EmulatedLink(0.02, seed=3, span_s=3000.0)
    delays = np.array([link.arrives_s(t) - t for t in np.arange(0.0, 3000.0, 0.1)])
    stalled = delays > 0.06
    assert stalled.mean() == pytest.approx(STALL_SHARE, rel=0.3)
    assert delays.max() < 0.95
    assert np.median(delays) == pytest.approx(0.01, rel=0.05)
    assert link.answered_s(1000.0, 0.083) > 1000.083


def test_stalls_are_where_the_seed_puts_them_whatever_else_travels():
    quiet, busy = EmulatedLink(0.02, seed=5), EmulatedLink(0.02, seed=5)
    for t in np.arange(0.0, 60.0, 0.01):
        busy.arrives_s(t)
    late = [[link.arrives_s(t) - t > 0.1 for t in range(60)] for link in (quiet, busy)]
    assert late[0] == late[1]
    with pytest.raises(ValueError, match="round_trip_s"):
        EmulatedLink(-1.0, 0)


def test_distractors_are_seen_and_change_nothing_else():
    env = SawyerEnv("pick-place")
    env.reset(SEED)
    places = env.privileged()
    way = np.stack([places[name] for name in ("hand", "object", "goal")])
    before, physics = env.render("corner2").astype(int), env.snapshot().physics
    env.distractors = place(SEED, way)
    after = env.render("corner2").astype(int)
    assert len(env.distractors) == COUNT
    changed = (abs(after - before).max(axis=2) > 30).mean()
    assert 0.01 < changed < 0.3
    assert (env.snapshot().physics == physics).all()
    for item in env.distractors:
        for a, b in pairwise(way[:, :2]):
            on_way = a + np.linspace(0, 1, 50)[:, None] * (b - a)
            assert np.linalg.norm(on_way - item.position[:2], axis=1).min() > CLEAR_M - 0.01
    env.reset(SEED)
    assert not env.distractors
    env.close()
