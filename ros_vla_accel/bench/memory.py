"""A decoder of Llama-2-7B's shape (arXiv:2307.09288) in INT4: peak memory, and time against BF16.

Memory: a process of its own builds all 32 layers packed, with random bytes, one after another,
embedding and output projection in BF16, and answers once: a prompt of 280 tokens and 7 more, as
OpenVLA's action. Its peak resident memory is measured. BF16 does not fit every machine, so its
peak is its weights plus what the measured process needed besides its own weights.

Time: the same prompt and tokens through a few layers, INT4 and prepacked BF16 taking turns, scaled
to 32 layers. Rotary embedding, embedding and output projection are left out of both sides.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from ros_vla_accel.bench.common import Result, spread
from ros_vla_accel.bench.kernels import prepacked, random_layer
from ros_vla_accel.quantization import ActivationBits, W4AXLinear

WIDTH, HIDDEN, HEADS, LAYERS, VOCABULARY = 4096, 11008, 32, 32, 32000
PROMPT, TOKENS = 280, 7
WIDTHS = (8, 16)
TARGETS = {"memory_ratio_7b": 0.309}
"""Largest values wanted."""

Make = Callable[[int, int], nn.Module]
"""(inputs, outputs) -> a linear layer."""


class Prepacked(nn.Module):
    """BF16 layer with one copy of its weights in oneDNN's layout per number of rows."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        weight = 0.02 * torch.randn(outputs, inputs, dtype=torch.bfloat16)
        self.calls = {rows: prepacked(weight, rows) for rows in (1, PROMPT)}

    def forward(self, x: Tensor) -> Tensor:
        return self.calls[len(x)](x)


class DecoderLayer(nn.Module):
    """Attention and gated perceptron over rows (T, D), which follow the rows seen before."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH, dtype=torch.bfloat16) for _ in "12")
        self.query, self.key, self.value, self.out = (make(WIDTH, WIDTH) for _ in "qkvo")
        self.gate, self.up, self.down = (
            make(WIDTH, HIDDEN),
            make(WIDTH, HIDDEN),
            make(HIDDEN, WIDTH),
        )
        # Keys and values of all rows to come, as decoders hold them: grown row by row, they would
        # be copied for each token.
        self.held = torch.empty(2, HEADS, PROMPT + TOKENS, WIDTH // HEADS, dtype=torch.bfloat16)
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norms[0](x)
        query, key, value = (
            layer(rows).unflatten(-1, (HEADS, -1)).transpose(0, 1)
            for layer in (self.query, self.key, self.value)
        )
        first, end = self.seen == 0, self.seen + len(x)
        self.held[0, :, self.seen : end], self.held[1, :, self.seen : end] = key, value
        self.seen = end
        key, value = self.held[:, :, :end]
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=first)
        x = x + self.out(seen.transpose(0, 1).flatten(1))
        rows = self.norms[1](x)
        return x + self.down(functional.silu(self.gate(rows)) * self.up(rows))


def answer(layers: nn.ModuleList, prompt: Tensor, ends: list[float] | None = None) -> Tensor:
    """Prompt (T, D) and ``TOKENS`` more rows through the layers; ``ends``: when each was done."""
    for layer in layers:
        layer.seen = 0
    x = prompt
    for step in range(1 + TOKENS):
        x = x[-1:] if step else x
        for layer in layers:
            x = layer(x)
        if ends is not None:
            ends.append(time.perf_counter())
    return x


class Packer:
    """Makes packed layers of one latch. The first of a shape is drawn at random and the others
    are copies of it: drawing 3 GB takes minutes, and neither memory nor time depends on values."""

    def __init__(self, latch: ActivationBits, group_size: int) -> None:
        self.latch, self.group_size = latch, group_size
        self.drawn: dict[tuple[int, int], W4AXLinear] = {}

    def __call__(self, inputs: int, outputs: int) -> nn.Module:
        first = self.drawn.get((inputs, outputs))
        if first is None:
            first = random_layer(inputs, outputs, self.group_size)
            first.latch = self.latch
            self.drawn[inputs, outputs] = first
            return first
        copied = copy.deepcopy(first)
        copied.latch = self.latch
        return copied


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _build_and_answer(layers: int, group_size: int, threads: int, out: Any) -> None:
    """Runs in a process of its own, so that its peak is its own."""
    torch.set_num_threads(threads)
    start = _peak_bytes()
    make = Packer(ActivationBits(8), group_size)
    with torch.inference_mode():
        embedding = torch.zeros(VOCABULARY, WIDTH, dtype=torch.bfloat16).fill_(0.01)
        head = torch.zeros(VOCABULARY, WIDTH, dtype=torch.bfloat16).fill_(0.01)
        model = nn.ModuleList(DecoderLayer(make) for _ in range(layers))
        rows = answer(model, embedding[:PROMPT])
        functional.linear(rows, head).argmax(-1)
    norms = sum(p.numel() * p.element_size() for p in model.parameters())
    packed = sum(b.numel() * b.element_size() for b in model.buffers())
    floats = sum(m.bytes_before for m in model.modules() if hasattr(m, "bytes_before"))
    ends = 2 * embedding.numel() * embedding.element_size()
    found = {
        "start_bytes": start,
        "peak_bytes": _peak_bytes(),
        "weights_bytes": norms + packed + ends,
        "bf16_weights_bytes": norms + floats + ends,
    }
    out.send(json.dumps(found))


def peak(layers: int, group_size: int) -> dict[str, Any]:
    """Bytes of the decoder with ``layers`` layers; ``bf16_peak_bytes`` is computed (see above)."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    arguments = (layers, group_size, torch.get_num_threads(), send)
    process = context.Process(target=_build_and_answer, args=arguments)
    process.start()
    send.close()
    try:
        found: dict[str, Any] = json.loads(receive.recv())
    except EOFError:
        process.join()
        raise RuntimeError(
            f"the process that builds {layers} layers ended with {process.exitcode}; it needs "
            f"about {layers / LAYERS * 3.4 + 1:.1f} GB of memory"
        ) from None
    process.join()
    overhead = found["peak_bytes"] - found["weights_bytes"]
    return {"layers": layers, **found, "bf16_peak_bytes": found["bf16_weights_bytes"] + overhead}


def timing(layers: int, repeats: int, group_size: int) -> list[dict[str, Any]]:
    """Seconds of prompt and tokens, scaled to 32 layers, one row per run and contender."""
    latch = ActivationBits()
    make = Packer(latch, group_size)
    models = {
        "bf16": nn.ModuleList(DecoderLayer(Prepacked) for _ in range(layers)),
        "w4": nn.ModuleList(DecoderLayer(make) for _ in range(layers)),
    }
    prompt = torch.randn(PROMPT, WIDTH, dtype=torch.bfloat16)
    rows = []
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for name in ("bf16", *(f"w4a{bits}" for bits in WIDTHS)):
                if name != "bf16":
                    latch.request(int(name[3:]))
                ends = [time.perf_counter()]
                answer(models["bf16" if name == "bf16" else "w4"], prompt, ends)
                if turn:  # The first warms up.
                    scale = LAYERS / layers
                    rows.append(
                        {
                            "run": turn,
                            "arm": name,
                            "prefill_s": (ends[1] - ends[0]) * scale,
                            "decode_s": (ends[-1] - ends[1]) * scale,
                            "total_s": (ends[-1] - ends[0]) * scale,
                        }
                    )
    return rows


def run(layers: int, timed_layers: int, repeats: int, group_size: int) -> Result:
    memory = peak(layers, group_size)
    rows = timing(timed_layers, repeats, group_size)
    times = {
        arm: spread([row["total_s"] for row in rows if row["arm"] == arm])
        for arm in dict.fromkeys(row["arm"] for row in rows)
    }
    summary = {
        "memory_ratio_7b" if layers == LAYERS else f"memory_ratio_{layers}_layers": memory[
            "peak_bytes"
        ]
        / memory["bf16_peak_bytes"],
        "peak_gb": memory["peak_bytes"] / 1e9,
        "bf16_peak_gb": memory["bf16_peak_bytes"] / 1e9,
    }
    for name in (f"w4a{bits}" for bits in WIDTHS):
        for part in ("prefill", "decode", "total"):
            medians = [
                float(np.median([row[f"{part}_s"] for row in rows if row["arm"] == arm]))
                for arm in ("bf16", name)
            ]
            summary[f"{name}_{part}_speedup"] = medians[0] / medians[1]
    return Result(
        name="memory",
        config={
            "layers": layers,
            "timed_layers": timed_layers,
            "times_scaled_to_layers": LAYERS,
            "repeats": repeats,
            "group_size": group_size,
            "threads": torch.get_num_threads(),
            "targets": TARGETS,
            "spread_total_s": times,
        },
        rows=[{"memory": memory}, *rows],
        summary=summary,
    )


def show(result: Result) -> None:
    """Prints the summary; times are those of 32 layers, scaled from fewer."""
    console = Console()
    timed = result.config["timed_layers"]
    console.print(f"bench memory (times scaled from {timed} to {LAYERS} layers)")
    for arm, times in result.config["spread_total_s"].items():
        low, high = times["min"], times["max"]
        console.print(f"{arm}: {times['median']:.3g} s ({low:.3g} to {high:.3g})")
    for key, value in result.summary.items():
        wanted = f"  (target <= {TARGETS[key]:g})" if key in TARGETS else ""
        console.print(f"{key}: {value:.3g}{wanted}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer timed layers and runs")
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the memory measurement")
    parser.add_argument("--timed-layers", type=int, help="default 2, quick 1")
    parser.add_argument("--repeats", type=int, help="timed runs (default 9, quick 3)")
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    options = parser.parse_args(argv)
    result = run(
        options.layers,
        options.timed_layers or (1 if options.quick else 2),
        options.repeats or (3 if options.quick else 9),
        options.group_size,
    )
    show(result)
    if options.json:
        result.write(options.json)
    return 0
