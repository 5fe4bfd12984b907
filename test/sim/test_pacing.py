"""Simulated time never runs ahead of wall time, and its lag is measured."""

from __future__ import annotations

import pytest

from ros_vla_accel.sim.pacing import DEBT_S, Pacer


class Wall:
    """A wall clock that moves only when slept on or worked on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def now(self) -> float:
        return self.now_s

    def work(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def wall() -> Wall:
    return Wall()


def run(pacer: Pacer, wall: Wall, ticks: int, work_s: float) -> float:
    """Wall time of ``ticks`` ticks of 10 ms that each cost ``work_s``."""
    start_s = wall.now_s
    for _ in range(ticks):
        wall.work(work_s)
        pacer.pace(0.01)
    return wall.now_s - start_s


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_a_fast_machine_runs_at_the_largest_factor(wall: Wall, factor: float) -> None:
    pacer = Pacer(factor, wall.now, wall.work)
    assert run(pacer, wall, 1000, 0.001) == pytest.approx(10.0 / factor, rel=0.02)
    assert pacer.factor == pytest.approx(factor, rel=0.02)


def test_a_slow_machine_shows_in_the_factor(wall: Wall) -> None:
    pacer = Pacer(1.0, wall.now, wall.work)
    run(pacer, wall, 300, 0.02)
    assert pacer.factor == pytest.approx(0.5, rel=0.02)


def test_a_short_delay_is_made_up_for(wall: Wall) -> None:
    pacer = Pacer(1.0, wall.now, wall.work)
    run(pacer, wall, 10, 0.001)
    wall.work(DEBT_S / 2)
    assert run(pacer, wall, 50, 0.001) == pytest.approx(0.5 - DEBT_S / 2, abs=0.02)


def test_a_long_delay_is_let_go(wall: Wall) -> None:
    pacer = Pacer(1.0, wall.now, wall.work)
    run(pacer, wall, 10, 0.001)
    wall.work(5.0)
    assert run(pacer, wall, 50, 0.001) == pytest.approx(0.5 - DEBT_S, abs=0.02)


def test_a_reset_does_not_count_as_slowness(wall: Wall) -> None:
    pacer = Pacer(1.0, wall.now, wall.work)
    run(pacer, wall, 100, 0.001)
    wall.work(3.0)
    pacer.restart()
    run(pacer, wall, 200, 0.001)
    assert pacer.factor == pytest.approx(1.0, rel=0.02)
