"""Two small heads: the reference one, and one written as public DiT-MoE code is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ros_vla_accel.moeca import BlockParts, Routes, Site, begin
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.head import ActionHead

Denoise = Callable[..., Tensor]


class OtherMoE(nn.Module):
    """Softmax top-k without renormalization, two shared experts, fused gate and up (SwiGLU)."""

    def __init__(self, width: int, hidden: int, experts: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.gate = nn.Linear(width, experts, bias=False)
        self.gate_up = nn.ModuleList(nn.Linear(width, 2 * hidden) for _ in range(experts + 2))
        self.down = nn.ModuleList(nn.Linear(hidden, width) for _ in range(experts + 2))

    def expert(self, number: int, x: Tensor) -> Tensor:
        gate, up = self.gate_up[number](x).chunk(2, dim=-1)
        return self.down[number](functional.silu(gate) * up)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(-1, x.shape[-1])
        weights, chosen = self.gate(rows).softmax(-1).topk(self.k)
        experts = len(self.down) - 2
        branches = torch.zeros(len(rows), self.k, rows.shape[-1], dtype=x.dtype)
        for number in range(experts):
            token, place = (chosen == number).nonzero(as_tuple=True)
            if len(token):
                branches[token, place] = self.expert(number, rows[token])
        out = (weights.unsqueeze(-1) * branches).sum(1)
        for number in (experts, experts + 1):
            out = out + self.expert(number, rows)
        return out.view_as(x)


class OtherBlock(nn.Module):
    def __init__(self, width: int, hidden: int, experts: int, k: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.Linear(width, width)  # Which attention it is does not matter here.
        self.moe = OtherMoE(width, hidden, experts, k)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x) + time)
        return x + self.moe(self.norm2(x))


class OtherHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(OtherBlock(32, 48, 6, 3) for _ in range(3))
        self.out = nn.Linear(32, 32)

    def forward(self, x: Tensor, time: float) -> Tensor:
        rows = x
        for layer in self.layers:
            rows = layer(rows, torch.full((32,), time, dtype=x.dtype))
        return self.out(rows)


class OtherLayer:
    experts, shared = 6, 2

    def __init__(self, moe: OtherMoE) -> None:
        self.moe, self.site = moe, Site(moe)

    def route(self, x: Tensor) -> Routes:
        weights, chosen = self.moe.gate(x).softmax(-1).topk(self.moe.k)
        return Routes(chosen, weights)

    def run(self, expert: int, rows: Tensor) -> Tensor:
        return self.moe.expert(expert, rows)

    def combine(self, branches: Tensor, shared: Tensor, routes: Routes) -> Tensor:
        out = (routes.gates.unsqueeze(-1) * branches).sum(1)
        for part in shared:
            out = out + part
        return out


class OtherAdapter:
    def __init__(self, head: OtherHead) -> None:
        self.blocks = [
            BlockParts(
                f"layers.{i}",
                Site(layer),
                (Site(layer.attn),),
                Site(layer.moe),
                OtherLayer(layer.moe),
            )
            for i, layer in enumerate(head.layers)
        ]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def reference_head() -> ActionHead:
    torch.manual_seed(0)
    config = ModelConfig(width=48, heads=2, blocks=4, expert_hidden=64)
    head = ActionHead(config)
    for layer in head.zero_layers():
        # Strong enough that tokens change their experts between steps.
        nn.init.normal_(layer.weight, std=0.2)
    return head.eval()


def denoise_reference(
    head: ActionHead, seed: int = 0, samples: int = 1, steps: int = 8, batch: int = 1
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(batch, 5, 48, generator=generator)
    x = torch.randn(batch, samples, 16, 4, generator=generator)
    conditioning = head.condition(context, (torch.arange(steps) / steps).expand(batch, -1))
    session = begin(head, steps)
    for index in range(steps):
        with session.step(index):
            x = x + head(x, conditioning.step(index)) / steps
    return x


def denoise_other(
    head: OtherHead, seed: int = 0, samples: int = 1, steps: int = 8, batch: int = 1
) -> Tensor:
    x = torch.randn(batch * samples, 10, 32, generator=torch.Generator().manual_seed(seed))
    session = begin(head, steps)
    for index in range(steps):
        with session.step(index):
            x = x + head(x, index / steps) / steps
    return x


@pytest.fixture
def reference() -> ActionHead:
    return reference_head()


@pytest.fixture(params=["reference", "other"])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, object, Denoise]:
    """A head, its adapter (None: it describes itself) and its sampler."""
    if request.param == "reference":
        return reference_head(), None, denoise_reference
    torch.manual_seed(0)
    head = OtherHead().eval()
    return head, OtherAdapter(head), denoise_other


@pytest.fixture
def denoise() -> Denoise:
    return denoise_reference
