"""The request protocol under a virtual clock: every process may die, every reply may go wrong."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from protocol_rules import LINKS, MOTIONS, MS
from protocol_world import World

from ros_vla_accel.contracts import ACTIVATION_BITS
from ros_vla_accel.partition.link import LinkState
from ros_vla_accel.partition.orders import StartEdge

DEADLINES = (0.2, 0.3, 0.7)
MODES = ("auto", "critical")


class Protocol(RuleBasedStateMachine):
    """Drives ``World``; each rule is something that happens to a robot."""

    @initialize(
        link=st.sampled_from(LINKS),
        edge_ms=st.sampled_from((30, 120, 240)),
        deadline_s=st.sampled_from(DEADLINES),
        mode=st.sampled_from(MODES),
        reuse=st.booleans(),
    )
    def begin(self, link: str, edge_ms: int, deadline_s: float, mode: str, reuse: bool) -> None:
        self.world = World()
        self.world.link = link
        self.world.edge_ms = edge_ms
        self.world.start_manager(deadline_s, mode, reuse)
        self.world.instruct("open the drawer")

    @invariant()
    def time_passes(self) -> None:
        for _ in range(7):
            self.world.step()

    @rule(steps=st.integers(1, 60))
    def a_moment_passes(self, steps: int) -> None:
        for _ in range(steps):
            self.world.step()

    @rule(steps=st.integers(120, 300))
    def a_while_passes(self, steps: int) -> None:
        for _ in range(steps):
            self.world.step()

    @rule(link=st.sampled_from(LINKS))
    def link_changes(self, link: str) -> None:
        self.world.link = link

    @rule(health=st.sampled_from(LinkState))
    def link_is_judged(self, health: LinkState) -> None:
        self.world.health = health

    @rule(edge_ms=st.sampled_from((30, 120, 240)))
    @precondition(lambda self: self.world.policy is None)
    def edge_speed(self, edge_ms: int) -> None:
        self.world.edge_ms = edge_ms

    @rule(text=st.sampled_from(("", "open the drawer", "press the button")))
    def instruction(self, text: str) -> None:
        if text != self.world.instruction:
            self.world.instruct(text)

    @rule()
    def preemption(self) -> None:
        self.world.preempt()

    @rule(motion=st.sampled_from(MOTIONS))
    def motion_changes(self, motion: str) -> None:
        self.world.motion = motion

    @rule(
        times=st.integers(2, 12),
        calm=st.integers(1, 80),
        critical=st.integers(1, 30),
        link=st.sampled_from(LINKS),
    )
    def motion_alternates(self, times: int, calm: int, critical: int, link: str) -> None:
        self.world.link = link
        for _ in range(times):
            self.motion_changes("calm")
            self.a_moment_passes(calm)
            self.motion_changes("critical")
            self.preemption()
            self.a_moment_passes(critical)

    @rule(times=st.integers(3, 40), every=st.integers(2, 14), link=st.sampled_from(LINKS))
    def preemption_storm(self, times: int, every: int, link: str) -> None:
        self.world.link = link
        for _ in range(times):
            self.preemption()
            self.a_moment_passes(every)

    @rule()
    def an_edge_inference_fails(self) -> None:
        self.world.edge_fails = True

    @rule(low=st.sampled_from(ACTIVATION_BITS), high=st.sampled_from(ACTIVATION_BITS))
    def width_changes_and_an_edge_inference_fails(self, low: int, high: int) -> None:
        self.width_changes(low)
        self.a_moment_passes(60)
        self.an_edge_inference_fails()
        self.width_changes(high)
        self.a_moment_passes(100)

    @rule(bits=st.sampled_from(ACTIVATION_BITS))
    def width_changes(self, bits: int) -> None:
        self.world.command_width(bits)

    @rule(
        times=st.integers(2, 12),
        low=st.sampled_from(ACTIVATION_BITS),
        high=st.sampled_from(ACTIVATION_BITS),
        every=st.integers(1, 40),
    )
    def width_swings(self, times: int, low: int, high: int, every: int) -> None:
        for _ in range(times):
            for bits in (low, high):
                self.width_changes(bits)
                self.a_moment_passes(every)

    @rule(back_ms=st.integers(0, 900), older=st.integers(0, 2))
    def stray_chunk(self, back_ms: int, older: int) -> None:
        """A chunk that nobody waits for, of the newest or an older episode."""
        world = self.world
        newest = world.episode
        if newest and (older or world.instruction):
            stray = StartEdge(next(world.order), newest - older, world.now - back_ms * MS, "stray")
            world.publish_chunk(world.chunk(stray, "cloud", world.executed()))

    @rule(moving=st.integers(110, 170), restart=st.booleans(), back_ms=st.integers(0, 300))
    def instruction_is_taken_back_in_motion(
        self, moving: int, restart: bool, back_ms: int
    ) -> None:
        world = self.world
        world.blind = world.joints_silent = False
        if world.policy is None:
            world.start_policy()
        if world.executor is None:
            world.start_executor()
        world.instruct("wave" if world.instruction != "wave" else "bow")
        self.a_moment_passes(moving)
        world.instruct("")
        if restart:
            self.a_moment_passes(10)
            world.start_executor()
            self.stray_chunk(back_ms, 1)
        self.a_moment_passes(60)

    @rule(steps=st.integers(26, 60), back_ms=st.integers(0, 900))
    def joint_states_drop_out(self, steps: int, back_ms: int) -> None:
        self.joint_states_change(True)
        self.a_moment_passes(steps)
        self.stray_chunk(back_ms, 0)
        self.joint_states_change(False)

    @rule()
    def policy_dies(self) -> None:
        self.world.policy = None

    @rule()
    @precondition(lambda self: self.world.policy is None)
    def policy_starts(self) -> None:
        self.world.start_policy()

    @rule()
    def policy_restarts_with_the_wall_clock_set_back(self) -> None:
        """It takes longer to start than a reply to its predecessor may be late."""
        self.policy_dies()
        self.a_moment_passes(130)
        self.world.start_policy(wall_back=True)

    @rule()
    def executor_dies(self) -> None:
        self.world.executor = None

    @rule()
    @precondition(lambda self: self.world.executor is None)
    def executor_starts(self) -> None:
        self.world.start_executor()

    @rule()
    def manager_dies(self) -> None:
        self.world.manager = None

    @rule(steps=st.integers(60, 200))
    def manager_dies_while_chunks_are_reused(self, steps: int) -> None:
        self.motion_changes("calm")
        self.manager_starts(0.3, "critical", True)
        self.a_moment_passes(steps)
        self.manager_dies()
        self.a_moment_passes(steps)

    @rule(deadline_s=st.sampled_from(DEADLINES), mode=st.sampled_from(MODES), reuse=st.booleans())
    def manager_starts(self, deadline_s: float, mode: str, reuse: bool) -> None:
        self.world.start_manager(deadline_s, mode, reuse)

    @rule(alive=st.booleans())
    def worker_changes(self, alive: bool) -> None:
        self.world.worker_alive = alive

    @rule(silent=st.booleans())
    def joint_states_change(self, silent: bool) -> None:
        self.world.joints_silent = silent
        self.world.disturb()

    @rule(blind=st.booleans())
    def cameras_change(self, blind: bool) -> None:
        self.world.blind = blind
        self.world.disturb()

    @rule(back_s=st.integers(1, 20))
    def clock_is_reset(self, back_s: int) -> None:
        world = self.world
        world.base -= back_s * 1000 * MS
        world.joints_ns = None
        world.played = (0, 0)
        world.faulted_ns = 0
        world.asked = world.owed_ns = world.newest = None
        world.forgotten = True
        world.disturb()


def _case(examples: int, derandomize: bool) -> type:
    case = type("Case", (Protocol.TestCase,), {})
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        derandomize=derandomize,
        database=None,
        suppress_health_check=list(HealthCheck),
        # Shrinking takes minutes; the failing steps are printed without it, too.
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    return case


TestProtocol = _case(200, derandomize=True)
TestProtocolAtLength = pytest.mark.slow(_case(3000, derandomize=False))
