"""The head's time against the error of its chunks: MoECa, other caches, fewer steps, solvers.

Two heads: the shipped one (flow) and one of the same architecture that was trained as a diffusion
model. Every contender answers the same observations (scripted episodes, every 8 steps of them)
with the same noise. Error is the distance of its chunk from that of the plain sampler, per entry
in units of the largest command (half its range), and of the velocities in m/s. The ancestral
sampler draws new noise at each step, so with another number of steps, or another solver, a chunk
is another sample, and its distance says little. Contenders take turns, one call each, so that a
busy machine slows all alike, and what runs the very same code under two names is measured once; a
speed-up is the median over turns of plain time over own time in that turn. ``gflop`` counts the
products of linear layers that were really run, per chunk.

``--pairs`` then runs the fastest of each kind's front in closed loop, paired with the plain
sampler, until one of MoECa's, one of all others and one warm start hold its success.

``--scale`` measures one denoising step of a larger head with random weights instead (D 1152,
H 4608, 16 experts, 12 blocks, 256 tokens): where experts are large, time follows the budget.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from ros_vla_accel.bench.common import Result
from ros_vla_accel.bench.moeca_across import across
from ros_vla_accel.bench.moeca_cases import BATCHES, Case, batched, cases
from ros_vla_accel.bench.moeca_compile import compiled
from ros_vla_accel.bench.moeca_contenders import (
    SAMPLERS,
    Contender,
    contenders,
    middle_interval,
)
from ros_vla_accel.bench.moeca_measure import Bench, errors, seam_jump
from ros_vla_accel.bench.moeca_parts import parts
from ros_vla_accel.bench.moeca_report import draw_front, draw_parts, front_behind, show
from ros_vla_accel.bench.moeca_scale import run_scale
from ros_vla_accel.bench.moeca_success import FIRST_SEED, ClosedLoops, Known, fastest, known_of
from ros_vla_accel.moeca import BranchCacheConfig
from ros_vla_accel.policies.reference_policy import ReferencePolicy

CHECKPOINTS = {"flow": "reference", "ddpm": "diffusion"}
SHOWN = ("none", "fora", "taylor 2", "tokens", "moeca", "moeca, lazy")
"""Families whose time is shown in parts, at the middle interval."""


def measure(
    bench: Bench,
    key: str,
    batch: str,
    entries: list[Contender],
    single: list[Case],
    threads: list[int],
    turns: int,
) -> list[dict[str, Any]]:
    """Rows of the contenders of a sampler, the plain one first, by thread counts in turn."""
    policy = bench.policy
    made = batched(single, batch, policy.spec)
    distinct = list(dict.fromkeys(contender.computation for contender in entries))
    torch.set_num_threads(max(threads))
    plain, _ = bench.chunks(entries[0], made)
    described = []
    for contender in track(distinct, f"errors, {key}, {batch}", transient=True):
        found, figures = bench.chunks(contender, made, plain)
        figures |= errors(policy, found, plain)
        described.append({**figures, "seam_jump_m_s": seam_jump(policy, found, made)})
    rows = []
    for count in threads:
        torch.set_num_threads(count)
        taken = bench.times(distinct, made, turns, plain)
        ratios = taken[0] / taken
        for contender in entries:
            i = distinct.index(contender.computation)
            rows.append(
                {
                    "sampler": key,
                    "batch": batch,
                    "threads": count,
                    "family": contender.family,
                    "setting": contender.setting,
                    "steps": contender.steps,
                    "ms": 1e3 * float(np.median(taken[i])),
                    "ms_iqr": [1e3 * float(v) for v in np.percentile(taken[i], [25, 75])],
                    "ms_per_chunk": 1e3 * float(np.median(taken[i])) / made[0].chunks,
                    "speedup": float(np.median(ratios[i])),
                    "speedup_iqr": [float(v) for v in np.percentile(ratios[i], [25, 75])],
                    **described[i],
                }
            )
    torch.set_num_threads(1)
    return rows


def run(options: argparse.Namespace, save: Callable[[Result], None]) -> Result:
    """Everything but ``--scale``; ``save`` is called whenever there is more to keep."""
    clock = time.thread_time if options.cpu_time else time.perf_counter
    objectives = list(dict.fromkeys(SAMPLERS[key].objective for key in options.samplers))
    policies = {name: ReferencePolicy(CHECKPOINTS[name]) for name in objectives}
    identities = {name: policy.spec.identity for name, policy in policies.items()}
    known: Known = known_of(options.reuse, identities) if options.reuse else {}
    config = {
        "turns": options.turns,
        "observations": 0,
        "pairs": options.pairs,
        "first_seed": FIRST_SEED,
        "identities": identities,
        "batches": {name: BATCHES[name] for name in options.batches},
        "clock": "processor time of one thread" if options.cpu_time else "elapsed time",
        "torch": torch.__version__,
    }
    result = Result("moeca", config, [], {})
    before, exact = torch.get_num_threads(), True
    for objective, policy in policies.items():
        bench = Bench(policy, clock)
        single = cases(policy, options.episodes)
        config["observations"] = len(single)
        with torch.inference_mode():
            for key in (k for k in options.samplers if SAMPLERS[k].objective == objective):
                for batch in options.batches:
                    # A call of many chunks takes long, and varies less.
                    turns = options.turns if batch == "one" else -(-options.turns // 3)
                    brief = options.quick or batch != "one"
                    result.rows += measure(
                        bench,
                        key,
                        batch,
                        contenders(SAMPLERS[key], brief),
                        single,
                        options.threads,
                        turns,
                    )
                    save(result)
                exact &= _exact(bench, key, single)
                result.rows += [
                    {"sampler": key, **row}
                    for row in parts(bench, _shown(key), single, options.turns)
                ]
            if objective == "flow":
                torch.set_num_threads(1)
                overhead = bench.hook_overhead(single[0], 4 * options.turns)
                result.summary["hook_overhead"] = overhead
                result.rows += across(bench, options.samplers[0], options.episodes)
                if options.compile:
                    result.rows += compiled(bench, options.samplers[0], single[0], options.turns)
    result.summary["exact_at_budget_1"] = exact
    behind, ratios = front_behind(result.rows)
    result.summary |= {"front_behind": behind} | {f"front_{k}": v for k, v in ratios.items()}
    torch.set_num_threads(before)
    save(result)
    for key in options.samplers if options.pairs else ():
        objective = SAMPLERS[key].objective
        loops = ClosedLoops(
            CHECKPOINTS[objective],
            policies[objective].manifest.training["tasks"],
            options.pairs,
            options.workers,
            known,
        )
        timed = [
            row
            for row in result.rows
            if row.get("sampler") == key
            and (row.get("batch"), row.get("threads")) == ("one", options.threads[0])
        ]
        for found in loops.run(key, contenders(SAMPLERS[key], options.quick), timed):
            result.rows.append(found)
            result.summary |= fastest([row for row in result.rows if "closed_loop" in row])
            save(result)
    return result


def _exact(bench: Bench, key: str, single: list[Case]) -> bool:
    """Whether a budget of 1 changes no bit."""
    sampler = SAMPLERS[key]
    plain = Contender("none", "", sampler.solver, sampler.steps)
    whole = Contender(
        "moeca", "budget 1", sampler.solver, sampler.steps, BranchCacheConfig(budget=1.0)
    )
    return bool(np.array_equal(*(bench.chunks(c, single[:4])[0] for c in (plain, whole))))


def _shown(key: str) -> list[Contender]:
    """Contenders whose time is taken apart: of each family the middle interval, plainly."""
    sampler = SAMPLERS[key]
    interval = f"every {middle_interval(sampler.steps)}"
    return [
        c
        for c in contenders(sampler)
        if c.family in SHOWN
        and (c.family == "none" or c.setting.startswith(interval))
        and not any(word in c.setting for word in ("held", "order", "attention", "full", "50 %"))
    ]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ros-vla-accel bench moeca",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="ten minutes: one thread, one robot")
    parser.add_argument(
        "--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS), help="all by default"
    )
    parser.add_argument("--batches", nargs="+", choices=BATCHES, help="all by default")
    parser.add_argument("--threads", type=int, nargs="+", help="torch threads (default 1 2)")
    parser.add_argument("--episodes", type=int, help="scripted episodes (default 16, quick 1)")
    parser.add_argument(
        "--turns", type=int, help="timed calls of each, of batches a third (default 15, quick 3)"
    )
    parser.add_argument(
        "--pairs", type=int, help="episodes in closed loop (default 400, quick 0: none)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes of the closed loop")
    parser.add_argument(
        "--reuse", metavar="JSON", help="take closed loops of the same contenders from there"
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile, too (flow, one thread; minutes)"
    )
    parser.add_argument("--scale", action="store_true", help="a larger head with random weights")
    parser.add_argument("--blocks", type=int, default=12, help="blocks of the larger head")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="processor time of one thread, for a machine that others keep busy",
    )
    parser.add_argument("--json", metavar="PATH", help="write the result here, as it grows")
    parser.add_argument(
        "--png", metavar="PATH", help="draw the front here, and parts in PATH-parts.png"
    )
    options = parser.parse_args(argv)
    quick = options.quick
    options.threads = options.threads or ([1] if quick or options.cpu_time else [1, 2])
    options.batches = options.batches or (["one"] if quick else list(BATCHES))
    options.turns = options.turns or (3 if quick else 15)
    options.episodes = options.episodes or (1 if quick else 16)
    options.pairs = (0 if quick else 400) if options.pairs is None else options.pairs
    if options.cpu_time and options.threads != [1]:
        parser.error("--cpu-time is the time of one thread; add --threads 1")
    if options.pairs and "one" not in options.batches:
        parser.error("--pairs needs --batches one: closed loops are of one robot")

    def save(result: Result) -> None:
        if options.json:
            result.write(options.json)

    if options.scale:
        result = run_scale(options.blocks, options.threads, options.turns, options.cpu_time)
        save(result)
    else:
        try:
            result = run(options, save)
        except ValueError as error:
            parser.error(str(error))
    show(result)
    if options.png and not options.scale:
        shown = [
            row
            for row in result.rows
            if (row.get("batch"), row.get("threads")) == (options.batches[0], options.threads[0])
        ]
        draw_front(shown, options.png)
        path = Path(options.png)
        first = [row for row in result.rows if row.get("sampler") == options.samplers[0]]
        draw_parts(first, str(path.with_name(f"{path.stem}-parts{path.suffix}")))
    return 0
