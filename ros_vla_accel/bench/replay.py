"""How fast replay is, how much memory it takes, and how large and quick its report is.

Recordings are made up: an arm of seven joints that moves, rests and is touched, at 100 Hz, with
two cameras where a size or a report is wanted. Speed is that of the replay alone, median of the
runs; memory is the peak of whole processes on bags of ``--megabytes``: a report of one full of
images and a replay of one full of joint states. The report is that of ten minutes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rosbags.rosbag2 import StoragePlugin, Writer

from ros_vla_accel.bench.common import Result, spread
from ros_vla_accel.nodes.recorder import typestore
from ros_vla_accel.replay.decisions import line
from ros_vla_accel.replay.pipeline import replay

START_NS = 1_750_000_000_000_000_000
JOINTS = 7
JOINT_STATE, IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"
CAMERAS = ("/camera/front/image_raw", "/camera/wrist/image_raw")
TARGETS = {
    "real_time_factor": (">=", 100.0),
    "peak_memory_mb": ("<", 500.0),
    "report_mb": ("<", 10.0),
    "report_s": ("<", 10.0),
}


def write_bag(
    folder: Path,
    seconds: float = float("inf"),
    megabytes: float = float("inf"),
    image: tuple[int, int] | None = None,
    image_hz: float = 10.0,
) -> Path:
    """A recording of so many seconds or megabytes, whichever comes first.

    image: height and width of two cameras' pictures, or no cameras.
    """
    store, rng = typestore(), np.random.default_rng(0)
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](0, 0)
    header = types["std_msgs/msg/Header"](stamp, "")
    names = [f"joint_{index}" for index in range(JOINTS)]
    zeros = np.zeros(JOINTS)
    state = types[JOINT_STATE](header, names, zeros, zeros, zeros)
    noise = rng.normal(0, 0.05, (997, JOINTS))
    written = 0
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        joints = writer.add_connection("/joint_states", JOINT_STATE, typestore=store)
        cameras = [
            writer.add_connection(topic, IMAGE, typestore=store) for topic in CAMERAS if image
        ]
        for index in range(round(min(seconds, 1e8) * 100)):
            now_ns = START_NS + index * 10_000_000
            stamp.sec, stamp.nanosec = divmod(now_ns, 1_000_000_000)
            _pose(state, index * 0.01, noise[index % len(noise)])
            data = store.serialize_cdr(state, JOINT_STATE)
            writer.write(joints, now_ns + 1_000_000, data)
            written += len(data)
            if image and index % round(100 / image_hz) == 0:
                for camera in cameras:
                    picture = _picture(types, header, image, index)
                    data = store.serialize_cdr(picture, IMAGE)
                    writer.write(camera, now_ns + 2_000_000, data)
                    written += len(data)
            if written > megabytes * 1e6:
                break
    return folder


def _pose(state: Any, t_s: float, noise: np.ndarray) -> None:
    phase = 0.3 * t_s * np.arange(1, JOINTS + 1)
    pace = max(0.0, np.sin(0.8 * t_s))
    state.position = np.sin(phase) * pace
    state.velocity = 0.4 * np.cos(phase) * pace
    state.effort = 5.0 * np.sin(phase) + noise + (20.0 if t_s % 7.0 > 6.8 else 0.0)


def _picture(types: Any, header: Any, size: tuple[int, int], index: int) -> Any:
    """A shaded square that wanders, on a grey ground."""
    height, width = size
    pixels = np.full((height, width, 3), 96, np.uint8)
    at = (index // 10) % max(1, width - width // 4)
    pixels[height // 3 : 2 * height // 3, at : at + width // 4] = np.linspace(
        20, 240, width // 4, dtype=np.uint8
    )[None, :, None]
    return types[IMAGE](header, height, width, "rgb8", 0, 3 * width, pixels.ravel())


def speed(bag: Path) -> dict[str, Any]:
    """One replay in this process, its decisions written as text."""
    texts: list[str] = []
    cpu_s = time.process_time()
    run = replay(bag, on_decision=lambda decision: texts.append(line(decision)))
    cpu_s = time.process_time() - cpu_s
    return {
        "real_time_factor": run.real_time_factor,
        "cpu_us_per_message": 1e6 * cpu_s / run.messages,
        "messages": run.messages,
        "decisions": len(texts),
    }


def command(name: str, bag: Path, *arguments: str) -> dict[str, Any]:
    """A whole ``ros-vla-accel`` process: how long it took and its largest resident memory."""
    script = (
        "import sys; from ros_vla_accel.cli import main; status = main(sys.argv[1:]); "
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]); "
        "sys.exit(status)"
    )
    began_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, name, str(bag), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} of '{bag}' failed: {done.stderr}")
    return {
        "bag_mb": sum(file.stat().st_size for file in bag.iterdir()) / 1e6,
        "seconds": time.perf_counter() - began_s,
        "peak_memory_mb": int(done.stdout.split()[-1]) / 1e3,
    }


def report(bag: Path, page: Path) -> dict[str, Any]:
    """``ros-vla-accel report``, from the bag to the page."""
    numbers = command("report", bag, "-o", str(page))
    return {
        "report_s": numbers["seconds"],
        "report_mb": page.stat().st_size / 1e6,
        "peak_memory_mb": numbers["peak_memory_mb"],
    }


def run(minutes: float, megabytes: float, repeats: int) -> Result:
    """minutes: of the recording for speed and report; megabytes: of those for memory."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-replay-") as name:
        folder = Path(name)
        plain = write_bag(folder / "joints", seconds=60 * minutes)
        replay(plain)  # Imports and caches are no part of the speed.
        for index in track(range(repeats), "speed", transient=True):
            rows.append({"what": "speed", "run": index, **speed(plain)})
        pictured = write_bag(folder / "cameras", 60 * minutes, image=(120, 160), image_hz=2.0)
        page = folder / "report.html"
        for index in range(repeats):
            rows.append({"what": "report", "run": index, **report(pictured, page)})
        # Images are read for the report's camera strip only, so that is what is measured.
        large = write_bag(folder / "images", megabytes=megabytes, image=(480, 640))
        numbers = command("report", large, "-o", str(page))
        rows.append({"what": "memory, images", "run": 0, **numbers})
        shutil.rmtree(large)
        large = write_bag(folder / "states", megabytes=megabytes)
        numbers = command("replay", large, "--out", str(folder / "decisions.jsonl"))
        rows.append({"what": "memory, joint states", "run": 0, **numbers})

    def spread_of(what: str, key: str) -> dict[str, float]:
        return spread([row[key] for row in rows if row["what"] == what])

    spreads = {
        "real_time_factor": spread_of("speed", "real_time_factor"),
        "report_s": spread_of("report", "report_s"),
        "report_mb": spread_of("report", "report_mb"),
    }
    return Result(
        name="replay",
        config={
            "minutes": minutes,
            "megabytes": megabytes,
            "repeats": repeats,
            "joints": JOINTS,
            "rate_hz": 100,
            "spread": spreads,
            "targets": {key: f"{sign} {bound:g}" for key, (sign, bound) in TARGETS.items()},
        },
        rows=rows,
        summary={
            **{key: values["median"] for key, values in spreads.items()},
            "peak_memory_mb": max(row.get("peak_memory_mb", 0.0) for row in rows),
            "cpu_us_per_message": spread_of("speed", "cpu_us_per_message")["median"],
        },
    )


def show(result: Result) -> None:
    table = Table("", "value", "wanted", title="bench replay")
    for key, value in result.summary.items():
        sign, bound = TARGETS.get(key, ("", 0.0))
        table.add_row(key, f"{value:.3g}", f"{sign} {bound:g}" if sign else "")
    Console().print(table)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench replay", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small recordings, one run of each")
    parser.add_argument("--minutes", type=float, help="recorded time (default 10, quick 1)")
    parser.add_argument("--megabytes", type=float, help="large bags (default 1000, quick 50)")
    parser.add_argument("--repeats", type=int, help="runs (default 3, quick 1)")
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    options = parser.parse_args(argv)
    quick = options.quick
    result = run(
        options.minutes or (1.0 if quick else 10.0),
        options.megabytes or (50.0 if quick else 1000.0),
        options.repeats or (1 if quick else 3),
    )
    show(result)
    if options.json:
        result.write(options.json)
    return 0
