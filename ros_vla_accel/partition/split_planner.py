"""Where a request is cut and how it travels: the way that is expected to be answered soonest.

Split computing between edge and cloud, as RAPID (arXiv:2603.07949) plans it from measured times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ros_vla_accel.partition.latency import LatencyWindow
from ros_vla_accel.partition.route import CUTS, ENCODINGS, Form

STAGES = ("vision", "backbone", "head")
"""Stages of a policy that can be cut, in order; a cut is named after the last one on the edge."""


@dataclass(frozen=True)
class FormCost:
    """What a form costs the edge. prepare_s: from the observation to the bytes, the stages before
    the cut included. sent_bytes: size of the request's data."""

    prepare_s: float
    sent_bytes: int


@dataclass(frozen=True)
class PlannerConfig:
    """cut, encoding: "auto" lets the planner choose.

    margin, margin_s: another form must be expected to answer sooner by this share and by this
    long, through hold_s, before it takes over. bandwidth_bit_s: assumed until it is measured,
    which takes a request of 16 KB; low, so that nothing large is tried on a link that may be slow.
    """

    cut: str = "auto"
    encoding: str = "auto"
    margin: float = 0.1
    margin_s: float = 0.002
    hold_s: float = 2.0
    bandwidth_bit_s: float = 20e6

    def __post_init__(self) -> None:
        for key, allowed in (("cut", CUTS), ("encoding", ENCODINGS)):
            value = getattr(self, key)
            if value not in ("auto", *allowed):
                raise ValueError(f"{key} is '{value}'; choose from auto, {', '.join(allowed)}")


class SplitPlanner:
    """Chooses among the forms whose cost is known; ``plan`` is called a few times a second.

    Starts with whole observations as JPEG, the answer to which measures every stage of the worker;
    no other cut is considered before it. A stage that no longer runs in the cloud keeps its last
    times. ``note_reply`` may be called from another thread.
    """

    def __init__(self, config: PlannerConfig) -> None:
        self.config = config
        self.form = Form(
            "observation" if config.cut == "auto" else config.cut,
            "jpeg" if config.encoding == "auto" else config.encoding,
        )
        self.expected_s: dict[Form, float] = {}
        self._edge: Mapping[str, FormCost] = {}
        self._cloud: dict[str, LatencyWindow] = {}
        self._decode: dict[str, LatencyWindow] = {}
        self._answered_whole = False
        self._better_since_s: float | None = None

    def note_edge(self, costs: Mapping[str, FormCost]) -> None:
        """What the edge measured, by ``Form.name``; a form that is missing is not possible."""
        self._edge = costs

    def note_reply(self, name: str, timings_s: Mapping[str, float]) -> None:
        """An answer to a request of the form ``name``, with the worker's durations."""
        for stage in STAGES:
            if stage in timings_s:
                self._cloud.setdefault(stage, LatencyWindow(16)).add(timings_s[stage])
        self._answered_whole |= name in ENCODINGS
        self._decode.setdefault(name, LatencyWindow(16)).add(timings_s.get("decode", 0.0))

    def plan(self, now_s: float, round_trip_s: float, bandwidth_bit_s: float) -> Form:
        """The form from now on. now_s: steady clock; NaN for what has not been measured."""
        if not bandwidth_bit_s > 0:
            bandwidth_bit_s = self.config.bandwidth_bit_s
        expected = self.expected_s = {
            form: self._expected_s(form, round_trip_s, bandwidth_bit_s) for form in self._forms()
        }
        if not expected:
            return self.form
        best = min(expected, key=lambda form: expected[form])
        now = expected.get(self.form, math.inf)
        gain_s = now - expected[best]
        if math.isfinite(now) and gain_s <= max(self.config.margin * now, self.config.margin_s):
            self._better_since_s = None
            return self.form
        # Whichever form is best at the end: several may take turns in being better than this one.
        if self._better_since_s is None:
            self._better_since_s = now_s
        if not math.isfinite(now) or now_s - self._better_since_s >= self.config.hold_s:
            self.form, self._better_since_s = best, None
        return self.form

    def describe(self) -> str:
        """The plan in words, e.g. "backbone, 38 ms expected; observation jpeg 61 ms"."""
        told = sorted(self.expected_s.items(), key=lambda item: (item[0] != self.form, item[1]))
        return "; ".join(f"{_words(form)} {1e3 * seconds:.1f} ms" for form, seconds in told)

    def _forms(self) -> list[Form]:
        """Those that the configuration allows and whose cost is known."""
        config = self.config
        encodings = [
            encoding
            for encoding in (ENCODINGS if config.encoding == "auto" else (config.encoding,))
            if encoding in self._edge
        ]
        cuts = CUTS if config.cut == "auto" else (config.cut,)
        forms = [Form("observation", e) for e in encodings if "observation" in cuts]
        # With a cut, the encoding is only for images that go in its place: the smallest.
        spare = min(encodings, key=lambda e: self._edge[e].sent_bytes, default=self.form.encoding)
        for cut in cuts:
            if cut in self._edge and (self._answered_whole or config.cut == cut):
                forms.append(Form(cut, spare))
        return forms

    def _expected_s(self, form: Form, round_trip_s: float, bandwidth_bit_s: float) -> float:
        cost = self._edge[form.name]
        cloud_s = sum(self._cloud[s].p50_s for s in _after(form.cut) if s in self._cloud)
        decode_s = self._decode[form.name].p50_s if form.name in self._decode else 0.0
        transfer_s = 8 * cost.sent_bytes / bandwidth_bit_s
        travel_s = round_trip_s if round_trip_s > 0 else 0.0
        return cost.prepare_s + travel_s + transfer_s + decode_s + cloud_s


def _after(cut: str) -> tuple[str, ...]:
    """Stages that run in the cloud."""
    return STAGES[STAGES.index(cut) + 1 :] if cut in STAGES else STAGES


def _words(form: Form) -> str:
    return f"observation {form.encoding}" if form.cut == "observation" else form.cut
