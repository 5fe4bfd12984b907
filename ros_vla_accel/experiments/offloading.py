"""An episode with emulated compute and link, under a virtual clock: what every strategy shares.

Policies really run, rows are really executed by the executor's buffer; only durations are made
up. A strategy (``offloading_strategies``) decides when to ask whom.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from ros_vla_accel.cloud.codec import encode_observation
from ros_vla_accel.contracts import ActionChunk, InferenceRequest, Observation
from ros_vla_accel.control.chunk_buffer import ChunkBuffer
from ros_vla_accel.experiments.closed_loop import StateOrder
from ros_vla_accel.experiments.emulated_link import EmulatedLink
from ros_vla_accel.experiments.perturbation import Perturbation
from ros_vla_accel.experiments.width import to_sample
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.policies.instructions import instructions
from ros_vla_accel.policies.reference_policy import ReferencePolicy
from ros_vla_accel.sim.distractors import place
from ros_vla_accel.sim.env import TICK_S, TICKS_PER_STEP, SawyerEnv

TICK_NS = round(TICK_S * 1e9)
REST_TICKS = 110
"""The arm stands before its instruction while the nodes run already: triggers are warm."""
LIMIT_STEPS = 400
"""Control periods of an episode, 20 s: time for the slowest strategy to finish."""
LIGHT_BITS = 8
LIGHT_STEPS = 4


@dataclass(frozen=True)
class Durations:
    """Emulated compute, s: the proportions that RAPID's paper reports (arXiv:2603.07949).

    sampled: an inference of the light policy that draws 4 chunks over one drawn once; measured
    here with the context computed once: 1.5 (34.3 ms over 22.8 ms, one thread).
    """

    full_edge_s: float = 0.782
    full_cloud_s: float = 0.083
    light_edge_s: float = 0.139
    sampled: float = 1.5


@dataclass(frozen=True)
class Setting:
    """perturbation: see ``perturbation.PERTURBATIONS``. distractors: whether there are any."""

    perturbation: str = "none"
    distractors: bool = False
    round_trip_s: float = 0.02
    durations: Durations = field(default_factory=Durations)


@dataclass
class Episode:
    """What one episode was like.

    latency_s: of every replan, from the wish for a chunk to the arrival of one from an observation
    at least as new. age_s: of the observation behind each executed row. held_steps: control
    periods without a row. fallbacks: answers of the edge in place of a cloud that was late.
    edge_s: emulated compute on the edge. disagreements: of the chunks drawn for a replan.
    """

    seed: int
    success: bool = False
    steps: int = 0
    latency_s: list[float] = field(default_factory=list)
    age_s: list[float] = field(default_factory=list)
    held_steps: int = 0
    replans: int = 0
    edge_inferences: int = 0
    cloud_calls: int = 0
    fallbacks: int = 0
    bytes_sent: int = 0
    preemptions: int = 0
    edge_s: float = 0.0
    disagreements: list[float] = field(default_factory=list)


class Strategy(Protocol):
    """Decides whom to ask for the next chunk, and when."""

    def begin(self, world: World) -> None:
        """A new episode."""
        ...

    def on_sample(self, sample: JointSample) -> None:
        """A joint state, every 10 ms, from before the instruction on."""
        ...

    def instruct(self, text: str) -> None:
        """The task is to be done from now on."""
        ...

    def on_executor(self) -> None:
        """A control period has begun."""
        ...

    def poll(self) -> None:
        """Every 10 ms, after what has arrived."""
        ...


class World:
    """One episode: the arm, the executor's buffer, two policies, and what takes how long.

    full: in the cloud, or very slowly on the edge; light: the edge's own.
    """

    def __init__(
        self,
        env: SawyerEnv,
        full: ReferencePolicy,
        light: ReferencePolicy,
        setting: Setting,
        seed: int,
    ) -> None:
        self.env, self.full, self.light, self.setting = env, full, light, setting
        self.figures, self.seed = Episode(seed), seed
        spec = full.spec
        self.spec = spec
        self.period_ns = round(spec.period_s * 1e9)
        self.now_ns = 0
        self.buffer = ChunkBuffer(len(spec.action_names), spec.period_s)
        self.link = EmulatedLink(setting.round_trip_s, seed)
        texts = instructions(env.task)
        self._text = texts[seed % len(texts)]
        self._order = StateOrder(env, spec.state_names)
        self._perturb = Perturbation(setting.perturbation, seed)
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._draws = itertools.count(seed << 16)
        self._open: list[int] = []
        self._observed: dict[int, int] = {}

    # For strategies

    def later(self, at_ns: int, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (at_ns, next(self._count), call))

    def observe(self) -> Observation:
        """What the cameras see now."""
        env = self.env
        images = {c.name: self._perturb(env.render(c.name)) for c in self.spec.cameras}
        return Observation(images, self._order(env.state()), self._text, self.now_ns)

    def replan(self) -> None:
        """A new chunk is wanted from now on; how long it takes is measured."""
        self.figures.replans += 1
        self._open.append(self.now_ns)

    def ask_edge(
        self,
        seen: Observation,
        done: Callable[[list[ActionChunk]], None],
        *,
        full: bool = False,
        samples: int = 1,
    ) -> None:
        """An inference on the edge; its chunks come to ``done`` when it ends."""
        durations = self.setting.durations
        took_s = durations.full_edge_s if full else durations.light_edge_s
        took_s *= durations.sampled if samples > 1 else 1.0
        self.figures.edge_inferences += 1
        self.figures.edge_s += took_s
        policy = self.full if full else self.light
        previous, executed = self.buffer.in_play, self.buffer.executed_rows
        draws = [next(self._draws) for _ in range(samples)]

        def end() -> None:
            # Seen once, drawn often.
            what = policy.encode(seen, "backbone") if samples > 1 else seen
            bits = 16 if full else LIGHT_BITS
            asked = [
                InferenceRequest(what, seed, 0, seed, bits, 0, previous, executed)
                for seed in draws
            ]
            done([replace(chunk, source="edge") for chunk in policy.infer(asked)])

        self.later(self.now_ns + round(took_s * 1e9), end)

    def ask_cloud(
        self, seen: Observation, done: Callable[[Callable[[], ActionChunk]], None]
    ) -> None:
        """A request to the cloud; when it is answered, ``done`` gets a function that makes the
        chunk, so that nothing is computed for an answer that nobody waits for."""
        figures, now_s = self.figures, self.now_ns * 1e-9
        figures.cloud_calls += 1
        figures.bytes_sent += len(encode_observation(seen, "jpeg")[1])
        draw = next(self._draws)
        previous, executed = self.buffer.in_play, self.buffer.executed_rows

        def chunk() -> ActionChunk:
            asked = InferenceRequest(seen, draw, 0, draw, 16, 0, previous, executed)
            return replace(self.full.infer([asked])[0], source="cloud")

        answered_s = self.link.answered_s(now_s, self.setting.durations.full_cloud_s)
        self.later(round(answered_s * 1e9), lambda: done(chunk))

    def offer(self, chunk: ActionChunk, observed_ns: int | None = None) -> None:
        """A chunk reaches the executor. observed_ns: of its observation, if not its stamp."""
        seen_ns = chunk.stamp_ns if observed_ns is None else observed_ns
        if not self.buffer.offer(chunk, self.now_ns).accepted:
            return
        self._observed[chunk.request_id] = seen_ns
        done = [asked_ns for asked_ns in self._open if asked_ns <= seen_ns]
        self._open = [asked_ns for asked_ns in self._open if asked_ns > seen_ns]
        self.figures.latency_s += [(self.now_ns - asked_ns) * 1e-9 for asked_ns in done]

    # The episode

    def run(self, strategy: Strategy) -> Episode:
        """From a standing arm to success or the limit."""
        env, figures = self.env, self.figures
        env.reset(self.seed)
        if self.setting.distractors:
            places = env.privileged()
            way = np.stack([places[name] for name in ("hand", "object", "goal")])
            env.distractors = place(self.seed, way)
        strategy.begin(self)
        gripper = -1.0
        for _ in range(REST_TICKS):
            self._tick(strategy, np.zeros(3), gripper)
        strategy.instruct(self._text)
        for _ in range(LIMIT_STEPS):
            figures.steps += 1
            self._until(self.now_ns + 1)
            row = self.buffer.row(self.now_ns)
            velocity = np.zeros(3)
            if row is not None:
                velocity, gripper = row.action[:3], float(row.action[-1])
                seen_ns = self._observed[row.chunk.request_id]
                figures.age_s.append((self.now_ns - seen_ns) * 1e-9)
            figures.held_steps += row is None
            strategy.on_executor()
            env.samples = []
            for _ in range(TICKS_PER_STEP):
                strategy.poll()
                self._tick(strategy, velocity, gripper)
                self._until(self.now_ns + 1)
            if env.check_success(gripper):
                break
        figures.success = env.success
        return figures

    def _tick(self, strategy: Strategy, velocity: np.ndarray, gripper: float) -> None:
        end_ns = self.now_ns + TICK_NS
        # Answers within the tick come at their own time; what is seen then is its beginning.
        self._until(end_ns)
        self.env.advance(velocity, gripper)
        self.now_ns = end_ns
        strategy.on_sample(to_sample(self.env.samples[-1]))

    def _until(self, end_ns: int) -> None:
        """What arrives before ``end_ns``."""
        now_ns = self.now_ns
        while self._queue and self._queue[0][0] < end_ns:
            at_ns, _, call = heapq.heappop(self._queue)
            self.now_ns = max(now_ns, at_ns)
            call()
        self.now_ns = now_ns
