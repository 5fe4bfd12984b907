"""The numbers of a report: cards, summary tables and the data-quality section."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ros_vla_accel.replay.quality import KINDS
from ros_vla_accel.replay.report_page import Table
from ros_vla_accel.replay.report_panels import STATES, has, latencies, starved
from ros_vla_accel.replay.run import Run


def cards(run: Run) -> list[tuple[str, str]]:
    """The few numbers that are read first: (name, value)."""
    shown = [("recorded", _seconds(run.duration_s))]
    if run.bits:
        shown.append(("mean activation bits", f"{_mean_bits(run):.1f}"))
    if len(run.decisions.get("t_s", ())):
        shown.append(("preemptions", str(len(run.preemptions_s))))
    for source, (_, values) in latencies(run).items():
        shown.append((f"{source} latency, median", f"{np.median(values):.0f} ms"))
    if has(run.events.get("executor", {}), "starved_ticks"):
        shown.append(("starved ticks", f"{starved(run)[-1]:.0f}"))
    shown.append(("samples refused", str(run.quality.refused)))
    return shown


def summary(run: Run) -> list[Table]:
    tables = [_recording(run), _decisions(run)]
    rows = _latency_rows(run)
    if rows:
        header = ("", "count", "p50", "p95", "max")
        tables.append(Table("Latency, ms", rows, header))
    playback = _playback(run)
    if playback:
        tables.append(Table("Playback", playback))
    return tables


def quality(run: Run) -> list[Table]:
    """What was wrong with the recording, and what was done about it."""
    found = run.quality
    rows = [
        (kind.replace("_", " "), f"{found.counts[kind]:,}", meaning)
        for kind, meaning in KINDS.items()
        if found.counts[kind]
    ]
    checked = f"{found.samples:,} joint states used, {found.refused:,} refused."
    tables = [
        Table(
            "Findings",
            rows or [("none", "0", "nothing of what is looked for was found")],
            ("", "count", "meaning and treatment"),
            checked,
        )
    ]
    if found.notes:
        tables.append(Table("Notes", [(note,) for note in found.notes]))
    return tables


def _recording(run: Run) -> Table:
    used = run.samples.get("t_s", np.zeros(0))
    rate = "none"
    if len(used) > 1:
        period_s = float(np.median(np.diff(used)))
        rate = f"{len(used):,} at {1 / period_s:.0f} Hz" if period_s > 0 else f"{len(used):,}"
    cameras = sorted({frame.topic for frame in run.frames})
    rows = [
        ("recording", run.bag),
        ("duration", _seconds(run.duration_s)),
        ("messages read", f"{run.messages:,}"),
        ("joint states used", rate),
        ("joints", ", ".join(run.joint_names) or "none"),
        ("motion by", run.motion_by),
        ("cameras", ", ".join(cameras) or "none"),
    ]
    if math.isfinite(run.real_time_factor):
        rows.append(("replayed at", f"{run.real_time_factor:.0f} times real time"))
    return Table("Recording", rows)


def _decisions(run: Run) -> Table:
    rows = [("control periods", f"{len(run.decisions.get('t_s', ())):,}")]
    if run.bits:
        shares = [f"{bits} bits {100 * share:.0f} %" for bits, share in run.bits.items()]
        rows.append(("activation widths", ", ".join(shares)))
    if run.route:
        shares = [f"{name} {100 * share:.0f} %" for name, share in run.route.items()]
        rows.append(("route", ", ".join(shares)))
    rows.append(("preemptions", str(len(run.preemptions_s))))
    critical = run.samples.get("critical", np.zeros(0))
    if len(critical):
        rows.append(("critical joint states", f"{100 * float(np.mean(critical)):.1f} %"))
    rows += [(f"threshold {name}", f"{value:g}") for name, value in sorted(run.thresholds.items())]
    return Table("Decisions", rows)


def _latency_rows(run: Run) -> list[tuple[str, ...]]:
    series = {f"inference, {name}": values for name, (_, values) in latencies(run).items()}
    link = run.events.get("link", {})
    if has(link, "round_trip_ms"):
        series["link round trip"] = link["round_trip_ms"][~np.isnan(link["round_trip_ms"])]
    return [
        (
            name,
            f"{len(values):,}",
            *(f"{np.percentile(values, rank):.1f}" for rank in (50, 95, 100)),
        )
        for name, values in series.items()
    ]


def _playback(run: Run) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    executor: dict[str, Any] = run.events.get("executor", {})
    if has(executor, "state"):
        counts = {
            name: int((executor["state"] == code).sum()) for code, (name, _) in STATES.items()
        }
        total = len(executor["state"])
        rows += [("control ticks", f"{total:,}")]
        rows += [
            (f"  {name}", f"{count:,} ({100 * count / total:.0f} %)")
            for name, count in counts.items()
            if count
        ]
        rows.append(("starved ticks", f"{starved(run)[-1]:.0f}"))
    chunks = run.events.get("chunks", {})
    for source in np.unique(chunks.get("source", ())):
        rows.append((f"chunks from {source}", f"{int((chunks['source'] == source).sum()):,}"))
    return rows


def _mean_bits(run: Run) -> float:
    return sum(int(bits) * share for bits, share in run.bits.items())


def _seconds(duration_s: float) -> str:
    minutes, seconds = divmod(duration_s, 60)
    return f"{minutes:.0f} min {seconds:.0f} s" if minutes else f"{seconds:.1f} s"
