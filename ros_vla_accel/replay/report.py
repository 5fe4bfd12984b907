"""``ros-vla-accel report``: a recording as one HTML page that works without a network."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from ros_vla_accel.replay.command import add_arguments, config_from, progress
from ros_vla_accel.replay.pipeline import replay
from ros_vla_accel.replay.report_frames import MAX_FRAMES, strips
from ros_vla_accel.replay.report_page import Page
from ros_vla_accel.replay.report_panels import panels
from ros_vla_accel.replay.report_summary import cards, quality, summary
from ros_vla_accel.replay.run import Run


def page(run: Run, start_s: float = 0.0) -> Page:
    """The report of a replayed recording; what has no data is named in it, and why.

    start_s: where in the recording the replay started.
    """
    span_s = (start_s, _end_s(run, start_s))
    drawn, missing = panels(run, span_s)
    cameras = strips(run.frames)
    if not cameras:
        missing.insert(0, ("Camera strip", "no images in the recording"))
    started = "at an unknown time"
    if run.start_ns:
        began = datetime.fromtimestamp(run.start_ns * 1e-9, timezone.utc)
        started = f"{began:%Y-%m-%d %H:%M:%S} UTC"
    return Page(
        title=Path(run.bag).name,
        subtitle=f"recorded {started}, replayed by ros_vla_accel",
        span_s=span_s,
        cards=cards(run),
        summary=summary(run),
        panels=drawn,
        strips=cameras,
        quality=quality(run),
        missing=missing,
    )


def _end_s(run: Run, start_s: float) -> float:
    """The last moment of anything; simulated time may have stood still while messages came."""
    tables = (run.samples, run.decisions, run.inferences, *run.events.values())
    ends = [float(table["t_s"][-1]) for table in tables if len(table.get("t_s", ()))]
    ends += [frame.t_s for frame in run.frames]
    return max(ends, default=start_s + max(run.duration_s, 1e-3))


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when the page was written."""
    parser = argparse.ArgumentParser(
        prog="ros-vla-accel report",
        description=f"{__doc__} The recording is replayed first, see `ros-vla-accel replay`.",
    )
    add_arguments(parser)
    parser.add_argument("-o", "--out", type=Path, default=Path("report.html"), metavar="HTML")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write size and times here")
    options = parser.parse_args(argv)
    console = Console(stderr=True)
    began_s = time.perf_counter()
    try:
        config = config_from(options, frames=MAX_FRAMES)
        with ExitStack() as stack:
            run = replay(options.bag, config, on_progress=progress(console, stack))
        data = page(run, options.start).html().encode()
        options.out.write_bytes(data)
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False)
        return 1
    numbers = {
        "report_mb": len(data) / 1e6,
        "report_s": time.perf_counter() - began_s,
        "replay_s": run.wall_s,
        "duration_s": run.duration_s,
    }
    if options.json:
        options.json.write_text(
            json.dumps({"name": "report", "summary": numbers}, indent=2) + "\n"
        )
    Console().print(
        f"{options.out}: {numbers['report_mb']:.1f} MB, {numbers['report_s']:.1f} s "
        f"({run.wall_s:.1f} s of it the replay of {run.duration_s:.0f} s)",
        markup=False,
        highlight=False,
    )
    return 0
