"""What the demo shows: a live table, a summary, and a contact sheet of the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.table import Table

from ros_vla_accel.msg import PrecisionCommand
from ros_vla_accel.nodes.demo_operator import Watch

_STATES = ("idle", "playing", "starved", "fault")
_HEALTH = ("down", "probing", "suspect", "healthy")


@dataclass
class TaskResult:
    """One task of the demo. time_s: simulated seconds from the instruction to success."""

    task: str
    instruction: str
    success: bool = False
    time_s: float = math.nan
    frames: list[tuple[float, np.ndarray]] = field(default_factory=list)


def quantile_ms(seconds: list[float], share: float) -> float:
    """NaN when empty."""
    return float(np.quantile(seconds, share)) * 1e3 if seconds else math.nan


def live_table(watch: Watch, task: str, instruction: str) -> Table:
    table = Table(title=f"ros_vla_accel demo: {task}", width=76, show_header=False)
    table.add_column(style="cyan", width=20)
    table.add_column()
    status, executor, inference, link = (
        watch.status,
        watch.executor,
        watch.inference,
        watch.link,
    )
    table.add_row("instruction", f"“{instruction}”")
    if status:
        outcome = "success" if status.get("success") else f"{status.get('time_s', 0):.1f} s"
        table.add_row("task", f"{outcome}, real-time factor {status['real_time_factor']:.2f}")
    if executor is not None:
        state = _STATES[executor.state]
        command = " ".join(f"{value:+.2f}" for value in executor.command)
        table.add_row("executor", f"{state}: {executor.reason}")
        table.add_row("command", command)
        table.add_row(
            "control",
            f"{watch.control_rate_hz():.1f} Hz, {executor.starved_ticks} starved of "
            f"{executor.ticks} ticks",
        )
    if inference is not None:
        edge, cloud = (watch.inference_s[name] for name in ("edge", "cloud"))
        table.add_row("policy", str(inference.status))
        table.add_row(
            "edge",
            f"{inference.inferences_edge} inferences, p50 {quantile_ms(edge, 0.5):.0f} ms, "
            f"{inference.fallbacks_edge} fallbacks",
        )
        table.add_row(
            "cloud",
            f"{inference.replies_cloud} of {inference.requests_cloud} answered, "
            f"p50 {quantile_ms(cloud, 0.5):.0f} ms, {inference.bytes_sent / 1e3:.0f} kB",
        )
        if math.isfinite(inference.cache_reuse):
            table.add_row(
                "cache", f"{inference.cache_reuse:.0%} reused, head {inference.head_ms:.0f} ms"
            )
        table.add_row(
            "width",
            f"{inference.activation_bits_commanded} bits commanded, "
            f"{inference.activation_bits_executed} executed at the edge",
        )
    if watch.precision is not None:
        table.add_row("precision", precision_text(watch.precision))
    if link is not None:
        table.add_row(
            "link", f"{_HEALTH[link.health]}, round trip {link.round_trip_ms:.1f} ms {link.reason}"
        )
    return table


def precision_text(command: PrecisionCommand) -> str:
    """Width, sensitivity S and what it is made of; the scores are NaN while unknown."""
    text = f"{command.activation_bits} bits"
    if math.isfinite(command.sensitivity):
        text += (
            f", S {command.sensitivity:.2f}, fineness {command.motion_fineness:+.2f}, "
            f"jerk {command.angular_jerk:.2f}"
        )
    return f"{text}: {command.reason}"


def width_shares(watch: Watch) -> dict[str, float]:
    """Share of the chunks, edge and cloud, by the width at which they were made."""
    total = sum(watch.executed.values())
    return {str(bits): count / total for bits, count in sorted(watch.executed.items())}


def summary(watch: Watch, results: list[TaskResult]) -> dict[str, Any]:
    """The machine-readable end of the demo."""
    executor, inference = watch.executor, watch.inference
    edge, cloud = (watch.inference_s[name] for name in ("edge", "cloud"))
    return {
        "tasks": len(results),
        "tasks_succeeded": sum(result.success for result in results),
        "control_rate_hz": watch.control_rate_hz(),
        "starved_ticks": int(executor.starved_ticks) if executor else -1,
        "ticks": int(executor.ticks) if executor else -1,
        "inferences_edge": int(inference.inferences_edge) if inference else -1,
        "inferences_cloud": int(inference.replies_cloud) if inference else -1,
        "fallbacks_edge": int(inference.fallbacks_edge) if inference else -1,
        "edge_p50_ms": quantile_ms(edge, 0.5),
        "edge_p99_ms": quantile_ms(edge, 0.99),
        "cloud_p50_ms": quantile_ms(cloud, 0.5),
        "cloud_p99_ms": quantile_ms(cloud, 0.99),
        "bytes_sent": int(inference.bytes_sent) if inference else -1,
        "widths_executed": width_shares(watch),
        "real_time_factor": float(np.median(watch.real_time_factors or [math.nan])),
    }


def summary_table(numbers: dict[str, Any], results: list[TaskResult]) -> Table:
    table = Table(title="ros_vla_accel demo", width=76, show_header=False)
    table.add_column(style="cyan", width=24)
    table.add_column()
    for result in results:
        outcome = f"[green]success[/] in {result.time_s:.1f} s" if result.success else "[red]no[/]"
        table.add_row(result.task, f"{outcome} (“{result.instruction}”)")
    table.add_row("control rate", f"{numbers['control_rate_hz']:.1f} Hz")
    table.add_row("starved ticks", f"{numbers['starved_ticks']} of {numbers['ticks']}")
    for place in ("edge", "cloud"):
        table.add_row(
            f"inferences {place}",
            f"{numbers[f'inferences_{place}']}, p50 {numbers[f'{place}_p50_ms']:.0f} ms, "
            f"p99 {numbers[f'{place}_p99_ms']:.0f} ms",
        )
    table.add_row("sent to the cloud", f"{numbers['bytes_sent'] / 1e3:.0f} kB")
    table.add_row(
        "inferences by width",
        ", ".join(
            f"{bits} bits: {share:.0%}" for bits, share in numbers["widths_executed"].items()
        )
        or "none",
    )
    table.add_row("real-time factor", f"{numbers['real_time_factor']:.2f}")
    return table


def save_contact_sheet(path: Path, results: list[TaskResult], columns: int = 6) -> None:
    """One row of frames per task, evenly spaced from the instruction to the end."""
    tile, caption = 192, 26
    rows = []
    for result in results:
        if not result.frames:
            continue
        start_s = result.frames[0][0]
        picked = np.linspace(0, len(result.frames) - 1, columns).round().astype(int)
        tiles = []
        for index in picked:
            time_s, image = result.frames[index]
            picture = cv2.resize(image, (tile, tile), interpolation=cv2.INTER_CUBIC)
            label = np.full((caption, tile, 3), 24, np.uint8)
            last = index == len(result.frames) - 1
            text = f"{time_s - start_s:.1f} s"
            if last:
                text += "  success" if result.success else "  no success"
            elif index == 0:
                text = result.task
            cv2.putText(
                label, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235,) * 3, 1, cv2.LINE_AA
            )
            tiles.append(np.vstack([label, picture]))
        rows.append(np.hstack(tiles))
    if not rows:
        raise ValueError("no camera frame was seen, so there is no contact sheet")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)):
        raise OSError(f"cannot write {path}; the name must end in .png or .jpg")
