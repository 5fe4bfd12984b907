"""The reference policy: the shipped checkpoint behind ``contracts.Policy``."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ros_vla_accel.contracts import (
    ActionChunk,
    Features,
    InferenceRequest,
    Observation,
    executed_width,
)
from ros_vla_accel.moeca import (
    CacheConfig,
    cache_config,
    disable_cache,
    enable_cache,
    following,
    forget,
    is_cached,
    remembers,
    summary,
)
from ros_vla_accel.policies.checkpoint import Manifest, load_checkpoint
from ros_vla_accel.policies.model import ReferenceVLA
from ros_vla_accel.policies.objectives import check_steps
from ros_vla_accel.policies.quantized import quantize_reference
from ros_vla_accel.policies.random_policy import checkpoint_folder, random_policy
from ros_vla_accel.policies.warm_start import WarmStart
from ros_vla_accel.quantization import WIDTHS, ActivationBits

DEFAULT_STEPS = {"flow": 10, "ddpm": 16}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ReferencePolicy:
    """Answers batches of requests, whole observations and features of any cut mixed.

    The noise of a request comes from a CPU generator with its seed. What else is in the batch, and
    the machine, change how sums are rounded. In float32 that moves an action by about 1e-6, unless
    two experts of a token tie to the last digits. In bfloat16 it sends tokens to other experts:
    entries of -1..1 were seen to differ by 0.08.

    On CUDA, TF32 is switched off for the whole process: its ten bits would do the same to float32.

    checkpoint: folder of weights and manifest, or the name of a shipped one
    (``random_policy.CHECKPOINTS``). steps: of denoising (10 Euler for flow, 16 DDIM for ddpm).
    threads: torch threads of this process, unchanged when None. source: what the chunks say about
    where they were made. size: instead of a checkpoint, a network of ``config.RANDOM_SIZES`` with
    random weights, the same on every machine with the same torch: for time and memory only.
    quantize: "w4ax" packs the weights to INT4 and runs each batch at the widest activations that
    it asks for; the checkpoint's hash stays that of its source. solver: None for the default.
    warm_start: share of the steps that a chunk skips which begins at the one in play
    (``warm_start.py``). cache: a configuration of ``moeca`` or its settings (``cache_config``),
    {} for MoECa's defaults, None for no cache. With ``across``, an episode keeps its noise, and an
    answer depends on the one before.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        steps: int | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        threads: int | None = None,
        source: str = "edge",
        size: str | None = None,
        quantize: str | None = None,
        solver: str | None = None,
        warm_start: float = 0.0,
        cache: Mapping[str, Any] | CacheConfig | None = None,
    ) -> None:
        if quantize not in (None, "w4ax"):
            raise ValueError(f"quantize '{quantize}' is unknown; set it to w4ax or leave it out")
        if dtype not in DTYPES:
            raise ValueError(f"dtype '{dtype}' is unknown; choose from {sorted(DTYPES)}")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device '{device}' is not available; set device: cpu")
        if threads is not None:
            torch.set_num_threads(threads)
        if size is None:
            model, self.manifest = load_checkpoint(checkpoint_folder(checkpoint))
        elif checkpoint:
            raise ValueError(f"size '{size}' has random weights; leave checkpoint out")
        else:
            model, self.manifest = random_policy(size)
        if device.startswith("cuda"):
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        where, self.dtype = torch.device(device), DTYPES[dtype]
        self._serve(
            model.to(where, self.dtype), self.manifest, steps, where, source, solver, warm_start
        )
        self.spec = replace(self.spec, precision=dtype)
        if quantize:
            self._latch = quantize_reference(self.model)
            self.spec = replace(self.spec, widths=WIDTHS, precision=f"w4ax, rest {dtype}")
        if cache is not None:
            enable_cache(self.model.head, cache_config(cache))

    def _serve(
        self,
        model: ReferenceVLA,
        manifest: Manifest,
        steps: int | None,
        device: torch.device,
        source: str,
        solver: str | None,
        warm_start: float,
    ) -> None:
        """What answering needs besides the weights; ``model`` may be any with its three calls."""
        objective = manifest.model.objective
        self.steps = DEFAULT_STEPS[objective] if steps is None else steps
        check_steps(objective, self.steps)
        self.model, self.manifest, self.spec = model, manifest, manifest.spec
        self.device, self.source = device, source
        # At its only width an unquantized model reads no latch: one that nothing is attached to.
        self._latch = ActivationBits()
        self._solver, self._warm = solver, WarmStart(warm_start)
        self.cold_restarts = 0
        self._tokenize = self.manifest.tokenizer()
        low, high = (torch.from_numpy(b).to(device) for b in manifest.normalization.bounds())
        self._bounds = low, high

    def reset(self, episode_id: int) -> None:
        """Drops what a cache kept for the next inference: nothing else is."""
        forget(self.model.head)

    def encode(self, observation: Observation, cut: str, activation_bits: int = 16) -> Features:
        """What leaves the edge after stage ``cut``: ``vision`` or ``backbone``.

        Raises ValueError for another cut, or an observation that does not fit the spec.
        """
        if cut not in self.spec.stages[:-1]:
            raise ValueError(f"cut '{cut}' is unknown; choose from {self.spec.stages[:-1]}")
        width = executed_width(activation_bits, self.spec.widths)
        with torch.inference_mode(), self._latch.inference(width):
            tensors = self._see([observation])
            if cut == "backbone":
                tensors = {"context": self._understand(tensors)}
        # Words stay whole numbers: as floats, the wire would round them.
        sent = {
            name: (tensor[0].int() if name == "words" else tensor[0].float()).cpu().numpy()
            for name, tensor in tensors.items()
        }
        return Features(cut, sent, observation.stamp_ns)

    def infer(self, requests: Sequence[InferenceRequest]) -> list[ActionChunk]:
        """One chunk per request, in order; ``timings_s`` are those of the whole batch.

        Raises ValueError naming the input that does not fit the spec.
        """
        if not requests:
            return []
        widths = self.spec.widths
        width = max(executed_width(request.activation_bits, widths) for request in requests)
        with torch.inference_mode(), self._latch.inference(width):
            timings: dict[str, float] = {}
            start = self._now()
            contexts = self._contexts(requests, timings)
            before_head = self._now()
            # Branches can only be handed on where an episode keeps its noise.
            kept = remembers(self.model.head)
            noise = torch.stack([self._noise(r.episode_id if kept else r.seed) for r in requests])
            chunks = self._act(contexts, noise, requests, width)
            end = self._now()
        timings |= {"head": end - before_head, "total": end - start}
        rows = self.manifest.normalization.unnormalize(chunks)
        return [
            ActionChunk(
                actions=rows[i],
                period_s=self.spec.period_s,
                stamp_ns=request.observation.stamp_ns,
                request_id=request.request_id,
                episode_id=request.episode_id,
                source=self.source,
                activation_bits=width,
                timings_s=dict(timings),
            )
            for i, request in enumerate(requests)
        ]

    def accelerate(self, cache: Mapping[str, Any] | CacheConfig | None, warm_start: float) -> None:
        """Between inferences: settings of a cache as at construction, in place of the present
        one, and of the warm start. ValueError for settings that make no sense."""
        self._warm = WarmStart(warm_start)
        config = None if cache is None else cache_config(cache)
        if is_cached(self.model.head):
            disable_cache(self.model.head)
        if config is not None:
            enable_cache(self.model.head, config)

    def reused(self) -> float:
        """Share of the expert branches, or whole paths where the cache keeps these, that were not
        computed since it was enabled; NaN without a cache."""
        head = self.model.head
        return summary(head).reuse if is_cached(head) else math.nan

    def _act(
        self,
        contexts: torch.Tensor,
        noise: torch.Tensor,
        requests: Sequence[InferenceRequest],
        width: int,
    ) -> np.ndarray:
        """(B, H, A) normalized: those that can begin at the chunk in play together, and those
        that cannot, or come out elsewhere, together from noise."""
        chunks = np.empty((len(requests), *noise.shape[2:]), np.float32)
        normalization = self.manifest.normalization
        guesses = [self._warm.guess(request, normalization) for request in requests]
        cold = [i for i, guess in enumerate(guesses) if guess is None]
        warm = [i for i, guess in enumerate(guesses) if guess is not None]
        if warm:
            begun = torch.from_numpy(np.stack([guesses[i] for i in warm])[:, None])
            episodes = tuple(requests[i].episode_id for i in warm)
            with following(self.model.head, ("warm", width, episodes)):
                found = self._denoise(contexts[warm], noise[warm], begun)
            for i, chunk in zip(warm, found, strict=True):
                chunks[i] = chunk
                if not self._warm.holds(chunk, guesses[i], requests[i].executed_rows):
                    cold.append(i)
                    self.cold_restarts += 1
        if cold:
            whole = len(cold) == len(requests)
            picked = (contexts, noise) if whole else (contexts[cold], noise[cold])
            episodes = tuple(requests[i].episode_id for i in cold)
            with following(self.model.head, ("cold", width, episodes)):
                chunks[cold] = self._denoise(*picked)
        return chunks

    def _denoise(
        self, contexts: torch.Tensor, noise: torch.Tensor, guess: torch.Tensor | None = None
    ) -> np.ndarray:
        moved = None if guess is None else guess.to(self.device)
        actions = self.model.act(
            contexts,
            noise.to(self.device),
            self.steps,
            self._bounds,
            self._solver,
            moved,
            self._warm.start,
        )
        return actions[:, 0].cpu().numpy()

    def _now(self) -> float:
        """Clock reading after all work that was given to the device, which may still be busy."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _noise(self, seed: int) -> torch.Tensor:
        config = self.manifest.model
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, config.horizon, config.action_dim, generator=generator)

    def _contexts(
        self, requests: Sequence[InferenceRequest], timings: dict[str, float]
    ) -> torch.Tensor:
        """Brings every request to the head's input (B, M, D), each from where it was cut."""
        inputs = [request.observation for request in requests]
        whole = [i for i, x in enumerate(inputs) if isinstance(x, Observation)]
        cut = {i: self._received(x) for i, x in enumerate(inputs) if isinstance(x, Features)}
        start = self._now()
        if whole:
            seen = self._see([inputs[i] for i in whole])  # type: ignore[misc]
            cut |= {i: {k: v[n] for k, v in seen.items()} for n, i in enumerate(whole)}
            timings["vision"] = self._now() - start
        start = self._now()
        early = [i for i, tensors in sorted(cut.items()) if "context" not in tensors]
        if early:
            batch = {k: torch.stack([cut[i][k] for i in early]) for k in cut[early[0]]}
            understood = self._understand(batch)
            cut |= {i: {"context": understood[n]} for n, i in enumerate(early)}
            timings["backbone"] = self._now() - start
        return torch.stack([cut[i]["context"] for i in range(len(inputs))])

    def _see(self, observations: Sequence[Observation]) -> dict[str, torch.Tensor]:
        """Vision stage, with what the backbone needs besides."""
        images = np.stack([self._images(o) for o in observations])
        state = np.stack([self._state(o) for o in observations])
        words = np.stack([self._tokenize(o.instruction) for o in observations])
        return {
            "vision": self.model.vision(torch.from_numpy(images).to(self.device)),
            "state": torch.from_numpy(state).to(self.device),
            "words": torch.from_numpy(words).to(self.device),
        }

    def _understand(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Backbone stage."""
        return self.model.backbone(tensors["vision"], tensors["state"], tensors["words"].long())

    def _images(self, observation: Observation) -> np.ndarray:
        """(C, 3, S, S) uint8 in the order of the spec's cameras."""
        planes = []
        for camera in self.spec.cameras:
            image = observation.images.get(camera.name)
            if image is None:
                raise ValueError(
                    f"observation has no image of camera '{camera.name}'; "
                    f"it has {sorted(observation.images) or 'none'}"
                )
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise ValueError(
                    f"image of camera '{camera.name}' is {image.dtype} {image.shape}; "
                    "it must be uint8 (H, W, 3), RGB"
                )
            if image.shape[:2] != (camera.height, camera.width):
                size = (camera.width, camera.height)
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            planes.append(image.transpose(2, 0, 1))
        return np.stack(planes)

    def _state(self, observation: Observation) -> np.ndarray:
        state, names = observation.state, self.spec.state_names
        if state.shape != (len(names),) or state.dtype != np.float32:
            raise ValueError(
                f"state is {state.dtype} {state.shape}; it must be float32 ({len(names)},) "
                f"in the order {', '.join(names)}"
            )
        if not np.isfinite(state).all():
            bad = [
                name for name, value in zip(names, state, strict=True) if not np.isfinite(value)
            ]
            raise ValueError(f"state of {', '.join(bad)} is not finite")
        return self.manifest.normalization.state_features(state)

    def _received(self, features: Features) -> dict[str, torch.Tensor]:
        """Checks tensors that crossed the wire and moves them to the device."""
        config = self.manifest.model
        tokens = config.cameras * ((config.image_size // 16) ** 2 + 1)
        shapes = {
            "vision": {
                "vision": (tokens, config.width),
                "state": (config.state_features,),
                "words": (config.words,),
            },
            "backbone": {"context": (2 + tokens + config.words, config.width)},
        }.get(features.cut)
        if shapes is None:
            raise ValueError(
                f"features were cut after '{features.cut}'; choose from {self.spec.stages[:-1]}"
            )
        tensors = {}
        for name, shape in shapes.items():
            found = features.tensors.get(name)
            if found is None or found.shape != shape:
                raise ValueError(
                    f"features after '{features.cut}' need '{name}' {shape}, "
                    f"got {None if found is None else found.shape}"
                )
            if not np.isfinite(found).all():
                raise ValueError(f"features '{name}' are not finite")
            # A copy: what came over the wire is read-only, and torch does not know of that.
            tensor = torch.from_numpy(np.array(found)).to(self.device)
            tensors[name] = tensor.long() if name == "words" else tensor.to(self.dtype)
        words = tensors.get("words")
        if words is not None and not 0 <= int(words.min()) <= int(words.max()) < config.vocabulary:
            raise ValueError(f"features 'words' must lie in 0..{config.vocabulary - 1}")
        return tensors


def reference(
    checkpoint: str | Path | None = None,
    steps: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    threads: int | None = None,
    source: str = "edge",
    size: str | None = None,
    quantize: str | None = None,
    solver: str | None = None,
    warm_start: float = 0.0,
    cache: Mapping[str, Any] | CacheConfig | None = None,
) -> ReferencePolicy:
    """Factory of the reference policy, ``ros_vla_accel.policies:reference``."""
    return ReferencePolicy(
        checkpoint,
        steps,
        device,
        dtype,
        threads,
        source,
        size,
        quantize,
        solver,
        warm_start,
        cache,
    )
