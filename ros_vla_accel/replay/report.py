"""``ros-vla-accel report``: a recording as one HTML page that works without a network."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from ros_vla_accel.replay.report_frames import strips
from ros_vla_accel.replay.report_page import Page
from ros_vla_accel.replay.report_panels import panels
from ros_vla_accel.replay.report_summary import cards, quality, summary
from ros_vla_accel.replay.run import Run


def page(run: Run) -> Page:
    """The report of a replayed recording. Raises nothing for missing data: it says so."""
    drawn, missing = panels(run)
    cameras = strips(run.frames)
    if not cameras:
        missing.insert(0, ("Camera strip", "no images in the recording"))
    started = "at an unknown time"
    if run.start_ns:
        started = (
            f"{datetime.fromtimestamp(run.start_ns * 1e-9, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
        )
    return Page(
        title=Path(run.bag).name,
        subtitle=f"recorded {started}, replayed by ros_vla_accel",
        span_s=(0.0, max(run.duration_s, 1e-3)),
        cards=cards(run),
        summary=summary(run),
        panels=drawn,
        strips=cameras,
        quality=quality(run),
        missing=missing,
    )
