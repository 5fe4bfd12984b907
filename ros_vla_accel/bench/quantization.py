"""DyQ-VLA in closed loop against static precisions, and what its choices are worth at 7 B.

Closed loop: every arm runs the same scenes of the simulator, on a virtual clock, so that success
does not depend on the machine. ``dynamic`` takes its width from the motion through a calibration,
as the nodes do. Success is compared over pairs of episodes with BF16. Time: the arms take turns
on recorded observations, one thread; an arm's cost is the mean of its widths' medians, weighted by
how often its closed loop used them; speedups are per control step, so that inferences asked for
early count. 7 B: the decoder of ``bench memory``, at the same shares.

On a CPU, 2 and 4 bits take as long as 8: what they can save here is nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from ros_vla_accel.bench import memory
from ros_vla_accel.bench.common import Result, percentile, spread
from ros_vla_accel.contracts import ACTIVATION_BITS, InferenceRequest, Policy
from ros_vla_accel.experiments.closed_loop import Condition, TaskResult
from ros_vla_accel.experiments.collect import observe
from ros_vla_accel.experiments.evaluate import REFERENCE, PolicyChoice, evaluate
from ros_vla_accel.experiments.statistics import paired_difference
from ros_vla_accel.experiments.width import WidthChoice
from ros_vla_accel.policies.instructions import instructions
from ros_vla_accel.quantization import ActivationBits
from ros_vla_accel.resources import existing_path
from ros_vla_accel.sim.env import TASKS, SawyerEnv, full_task_name

W4AX = PolicyChoice(REFERENCE, {"quantize": "w4ax"}, 1)
Loops = dict[tuple[str, str], list[TaskResult]]
"""(condition, arm) -> results per task, all over the same seeds."""
FIRST_SEED = 10_000
"""Scenes that no training, calibration or earlier evaluation used."""
PLAIN = "plain"
CONDITIONS = {
    PLAIN: Condition(),
    "noise, 100 ms late": Condition(latency_s=0.1, perturbation="noise"),
}
HARDER_ARMS = ("bf16", "w4a8", "w4a4", "dynamic")
"""Under other conditions than plain, where all but 2 bits succeed nearly always."""
TARGETS = {"speedup_7b": 1.49, "success_difference": -0.005, "success_difference_low": -0.03}
"""Smallest values wanted."""
SWITCH_TARGET_US = 10.0


@dataclass(frozen=True)
class Arm:
    """A policy at some width."""

    choice: PolicyChoice
    width: WidthChoice = field(default_factory=WidthChoice)


def arms_of(calibration: str) -> dict[str, Arm]:
    """All contenders, the baseline first."""
    static = {f"w4a{bits}": Arm(W4AX, WidthChoice(bits)) for bits in (16, 8, 4, 2)}
    return {
        "bf16": Arm(PolicyChoice("ros_vla_accel.bench.precision_arms:bf16", {}, 1)),
        "w8a8": Arm(PolicyChoice("ros_vla_accel.bench.precision_arms:w8a8", {}, 1)),
        **static,
        "dynamic": Arm(W4AX, WidthChoice(16, calibration)),
        "dynamic, no look-ahead": Arm(W4AX, WidthChoice(16, calibration, look_ahead=False)),
    }  # fmt: skip


def closed_loop(
    arms: dict[str, Arm],
    tasks: Sequence[str],
    episodes: int,
    conditions: dict[str, Condition],
    workers: int,
    known: Loops,
) -> Loops:
    """Every arm under every condition; those in ``known`` are not run again."""
    found: Loops = {}
    pairs = [(n, arm) for n in conditions for arm in arms if n == PLAIN or arm in HARDER_ARMS]
    total = sum(pair not in known for pair in pairs) * len(tasks) * episodes
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("episodes", total=total)
        for name, arm in pairs:
            found[name, arm] = known.get((name, arm)) or evaluate(
                arms[arm].choice,
                tasks,
                episodes,
                replace(conditions[name], width=arms[arm].width, expert=False),
                FIRST_SEED,
                workers,
                lambda count: progress.advance(bar, count),
            )
    return found


def reused(path: str, arms: dict[str, Arm], tasks: Sequence[str], episodes: int) -> Loops:
    """The closed loops of an earlier result: unlike times, they do not depend on the machine.

    Arms that follow the motion are left out when the calibration has changed. Raises ValueError
    when the result is of another policy, other tasks or other numbers of episodes.
    """
    content = json.loads(Path(path).read_text())
    config = content["config"]
    wanted = {
        "identity": W4AX.load().spec.identity,
        "tasks": list(tasks),
        "episodes": episodes,
        "first_seed": FIRST_SEED,
    }
    for key, value in wanted.items():
        if config[key] != value:
            raise ValueError(
                f"'{path}' has {key} {config[key]}, this run {value}; leave out --reuse"
            )
    loops: Loops = {}
    for row in content["rows"]:
        arm = arms.get(row["arm"]) if "condition" in row else None
        if arm is None:
            continue
        path_now = arm.width.calibration
        if not path_now or hash_of(path_now) == config["calibration_hash"]:
            loops[row["condition"], row["arm"]] = [TaskResult(**task) for task in row["tasks"]]
    return loops


def hash_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def starts_of(tasks: Sequence[str]) -> list[InferenceRequest]:
    """A request at the start of an episode of each task."""
    requests = []
    for index, task in enumerate(tasks):
        env = SawyerEnv(task, seed=FIRST_SEED)
        seen = observe(env, instructions(task)[0], 0)
        requests.append(InferenceRequest(seen, request_id=index, episode_id=0, seed=index))
        env.close()
    return requests


def inference_times(
    arms: dict[str, Arm], requests: Sequence[InferenceRequest], repeats: int
) -> list[dict[str, Any]]:
    """Seconds per inference of every arm and width, taking turns, one row per turn."""
    timed: dict[str, tuple[Policy, int]] = {}
    quantized: Policy | None = None
    for name, arm in arms.items():
        if arm.choice is W4AX:
            quantized = quantized or arm.choice.load()
            timed |= {f"w4a{bits}": (quantized, bits) for bits in quantized.spec.widths}
        else:
            timed[name] = arm.choice.load(), 16
    timed["fp32"] = PolicyChoice(REFERENCE, {}, 1).load(), 16
    torch.set_num_threads(1)
    rows = []
    for turn in track(range(repeats + 2), "inferences", transient=True):
        request = requests[turn % len(requests)]
        for name, (policy, bits) in timed.items():
            start = time.perf_counter()
            policy.infer([replace(request, activation_bits=bits)])
            if turn >= 2:
                rows.append({"timing": name, "run": turn, "s": time.perf_counter() - start})
    return rows


def switch_us(count: int) -> list[float]:
    """What a switch costs the one who asks for it, while a policy thread opens pass after pass."""
    latch, stop = ActivationBits(), threading.Event()

    def passes() -> None:
        while not stop.is_set():
            with latch.inference():
                time.sleep(0)

    thread = threading.Thread(target=passes)
    thread.start()
    taken = []
    for index in range(count):
        bits = memory.WIDTHS[index % len(memory.WIDTHS)]
        start = time.perf_counter_ns()
        latch.request(bits)
        taken.append((time.perf_counter_ns() - start) / 1e3)
        time.sleep(0)
    stop.set()
    thread.join()
    return taken


def shares(results: Sequence[TaskResult]) -> dict[int, float]:
    """Share of the inferences at each width."""
    bits = [b for result in results for b in result.bits]
    return {width: bits.count(width) / len(bits) for width in sorted(set(bits))}


def rate(results: Sequence[TaskResult]) -> float:
    """Inferences per control step."""
    return sum(len(r.bits) for r in results) / sum(sum(r.steps) for r in results)


def mixed(by_width: dict[int, float], seconds: dict[str, float]) -> float:
    """Mean seconds of an inference whose widths have these shares."""
    # 2 and 4 bits run on the kernel of 8 bits, whose time they have where they were not timed.
    return sum(
        share * seconds.get(f"w4a{bits}", seconds["w4a8"]) for bits, share in by_width.items()
    )


def loop_rows(
    loops: Loops, medians: dict[str, float], medians_7b: dict[str, float]
) -> list[dict[str, Any]]:
    """One row per condition and arm. medians: seconds per inference, by arm and width."""
    rows = []
    for (condition, arm), results in loops.items():
        ours = [s for r in results for s in r.successes]
        theirs = [s for r in loops[condition, "bf16"] for s in r.successes]
        difference, low, high = paired_difference(ours, theirs)
        # A chunk that is asked for early costs an inference more.
        more = rate(results) / rate(loops[condition, "bf16"])
        row: dict[str, Any] = {
            "condition": condition,
            "arm": arm,
            "episodes": len(ours),
            "success_rate": float(np.mean(ours)),
            "difference": difference,
            "difference_low": low,
            "difference_high": high,
            "inferences": sum(len(r.bits) for r in results),
            "inferences_over_bf16": more,
            "asked_early": sum(r.early for r in results),
            "ms": 1e3 * medians[arm] if arm in medians else None,
            "tasks": [asdict(r) | {"inference_s": []} for r in results],
        }
        if arm.startswith(("dynamic", "w4a")):
            used = shares(results)
            row["share_by_bits"] = {str(bits): share for bits, share in used.items()}
            row["ms"] = 1e3 * mixed(used, medians)
            cost = {b: s * mixed({b: 1.0}, medians) for b, s in used.items()}
            row["cost_share_by_bits"] = {str(b): c / sum(cost.values()) for b, c in cost.items()}
            row["speedup_7b"] = medians_7b["bf16"] / mixed(used, medians_7b) / more
        row["speedup"] = medians["bf16"] * 1e3 / row["ms"] / more
        rows.append(row)
    return rows


def run(
    calibration: str,
    tasks: list[str],
    episodes: int,
    conditions: dict[str, Condition],
    timed_layers: int,
    repeats: int,
    workers: int,
    reuse: str = "",
) -> Result:
    """episodes: per task, arm and condition. repeats: of every timing. reuse: see ``reused``."""
    threads_7b = torch.get_num_threads()  # Loading a policy sets it to one.
    arms = arms_of(calibration)
    known = reused(reuse, arms, tasks, episodes) if reuse else {}
    loops = closed_loop(arms, tasks, episodes, conditions, workers, known)
    times = inference_times(arms, starts_of(tasks), repeats)
    policy = W4AX.load()
    medians = {
        name: float(np.median([row["s"] for row in times if row["timing"] == name]))
        for name in dict.fromkeys(row["timing"] for row in times)
    }
    torch.set_num_threads(threads_7b)
    decoder = memory.timing(timed_layers, max(3, repeats // 4), 128)
    seconds_7b = {
        arm: spread([row["total_s"] for row in decoder if row["arm"] == arm])
        for arm in dict.fromkeys(row["arm"] for row in decoder)
    }
    medians_7b = {arm: times["median"] for arm, times in seconds_7b.items()}
    rows = loop_rows(loops, medians, medians_7b)
    by_arm = {row["arm"]: row for row in rows if row["condition"] == PLAIN}
    dynamic = by_arm["dynamic"]
    switches = switch_us(20_000)
    summary = {
        "speedup_7b": dynamic["speedup_7b"],
        "success_ratio": dynamic["success_rate"] / max(1e-9, by_arm["bf16"]["success_rate"]),
        "success_difference": dynamic["difference"],
        "success_difference_low": dynamic["difference_low"],
        "steps_at_16_bits": dynamic["share_by_bits"].get("16", 0.0),
        "switch_p99_us": percentile(switches, 99),
        "switch_p50_us": percentile(switches, 50),
        "speedup_reference": dynamic["speedup"],
        "speedup_over_w4a16": dynamic["speedup"] / by_arm["w4a16"]["speedup"],
        "speedup_over_w4a8": dynamic["speedup"] / by_arm["w4a8"]["speedup"],
    }
    config = {
        "calibration": Path(calibration).name,
        "calibration_hash": hash_of(calibration),
        "identity": policy.spec.identity,
        "tasks": tasks,
        "episodes": episodes,
        "first_seed": FIRST_SEED,
        "conditions": {name: asdict(c) for name, c in conditions.items()},
        "timed_layers": timed_layers,
        "times_scaled_to_layers": memory.LAYERS,
        "repeats": repeats,
        "threads_7b": threads_7b,
        "targets": {**TARGETS, "switch_p99_us": SWITCH_TARGET_US},
        "seconds_7b": seconds_7b,
        "ms_of_an_inference": {
            name: spread([1e3 * row["s"] for row in times if row["timing"] == name])
            for name in medians
        },
    }
    return Result("quantization", config, [*rows, *times, *decoder], summary)


def show(result: Result) -> None:
    """Prints one table per condition, one line per arm, and what the targets are about."""
    console, rows = Console(), [row for row in result.rows if "condition" in row]
    for condition in dict.fromkeys(row["condition"] for row in rows):
        table = Table(title=f"bench quantization: {condition}", box=SIMPLE)
        table.pad_edge, table.collapse_padding = False, True
        for column in ("arm", "success", "against bf16", "ms", "x", "x 7 B", "2/4/8/16 %"):
            justify: Any = "left" if column == "arm" else "right"
            table.add_column(column, justify=justify, no_wrap=True)
        for row in rows:
            if row["condition"] == condition:
                table.add_row(*_cells(row))
        console.print(table)
    console.print(
        "against bf16: points over pairs, 95 % interval; ms: an inference of the reference policy;"
        "\nx: time per control step, bf16 / arm, here and at 7 B; %: inferences by width"
    )
    for key, value in result.summary.items():
        wanted = f"  (target >= {TARGETS[key]:g})" if key in TARGETS else ""
        if key == "switch_p99_us":
            wanted = f"  (target <= {SWITCH_TARGET_US:g})"
        console.print(f"{key}: {value:.4g}{wanted}")


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = 100 * row["difference_low"], 100 * row["difference_high"]
    used = row.get("share_by_bits", {})
    widths = "/".join(f"{100 * used.get(str(bits), 0.0):.0f}" for bits in ACTIVATION_BITS)
    return [
        row["arm"].replace("dynamic, ", ""),
        f"{100 * row['success_rate']:.1f} %",
        f"{100 * row['difference']:+.1f} ({low:+.1f}..{high:+.1f})",
        f"{row['ms']:.0f}",
        f"{row['speedup']:.2f}",
        f"{row['speedup_7b']:.2f}" if "speedup_7b" in row else "",
        widths if used else "",
    ]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench quantization", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few episodes and layers: minutes")
    parser.add_argument("--tasks", nargs="+", help="all by default, quick: two")
    parser.add_argument("--episodes", type=int, help="per task and arm (default 50, quick 4)")
    parser.add_argument("--calibration", default="reference", help="YAML, or a name in config/")
    parser.add_argument("--repeats", type=int, help="turns of every timing (default 60, quick 12)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the closed loop")
    parser.add_argument(
        "--reuse",
        metavar="PATH",
        help="take closed loops from an earlier --json",
    )
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    options = parser.parse_args(argv)
    default = ["drawer-open", "pick-place"] if options.quick else list(TASKS)
    result = run(
        str(existing_path(options.calibration, "config/calibration").resolve()),
        [full_task_name(task) for task in options.tasks or default],
        options.episodes or (4 if options.quick else 50),
        {PLAIN: Condition()} if options.quick else CONDITIONS,
        1 if options.quick else 2,
        options.repeats or (12 if options.quick else 60),
        options.workers,
        options.reuse or "",
    )
    show(result)
    if options.json:
        result.write(options.json)
    return 0
