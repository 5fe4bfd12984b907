"""Made-up replays of any length, with every panel's data or with hardly any."""

from __future__ import annotations

import numpy as np

from ros_vla_accel.replay.quality import Quality
from ros_vla_accel.replay.run import Frame, Run


def full_run(duration_s: float = 30.0, rate_hz: float = 100.0, seed: int = 0) -> Run:
    """A replay in which everything was recorded."""
    rng = np.random.default_rng(seed)
    t = np.arange(0.0, duration_s, 1 / rate_hz)
    speed = 0.6 * np.abs(np.sin(0.7 * t)) + 0.02 * rng.random(len(t))
    weight = np.clip(speed / 1.2, 0, 1)
    spikes = rng.random(len(t)) < 0.3 / rate_hz
    anomaly = np.abs(rng.normal(0, 0.4, len(t))) + 8 * spikes * rng.random(len(t))
    torque = np.abs(rng.normal(0, 0.3, len(t))) + 9 * spikes
    importance = weight * anomaly + (1 - weight) * torque
    control = np.arange(0.0, duration_s, 0.05)
    score = 0.35 + 0.3 * np.sin(0.5 * control)
    score[control < 0.5] = np.nan
    bits = np.select([np.isnan(score), score > 0.5, score > 0.25, score > 0.1], [16, 16, 8, 4], 2)
    preemptions = t[np.flatnonzero(importance > 4)][::3]
    seq = np.searchsorted(preemptions, control)
    chunk_t = np.arange(0.4, duration_s, 0.4)
    cloud = rng.random(len(chunk_t)) < 0.4
    latency = 0.12 + 0.02 * rng.random(len(chunk_t))
    playing = np.searchsorted(chunk_t, control) - 1
    state = np.where(playing < 0, 0, np.where(rng.random(len(control)) < 0.02, 2, 1))
    second = np.arange(0.0, duration_s, 1.0)
    shades = np.linspace(40, 220, 128, dtype=np.uint8)
    image = np.broadcast_to(shades[None, :, None], (96, 128, 3)).copy()
    return Run(
        bag="full_run",
        start_ns=1_790_000_000_000_000_000,
        duration_s=duration_s,
        joint_names=("j0", "j1", "j2", "j3", "j4", "j5", "j6"),
        messages=3 * len(t),
        wall_s=duration_s / 150,
        samples={
            "t_s": t,
            "speed": speed,
            "acceleration": anomaly,
            "torque": torque,
            "acceleration_anomaly": anomaly,
            "torque_anomaly": torque,
            "velocity_weight": weight,
            "importance": importance,
            "critical": importance > 4,
        },
        decisions={
            "t_s": control,
            "fineness": np.where(np.isnan(score), np.nan, 1 - score),
            "jerk": np.where(np.isnan(score), np.nan, 0.2 + score**2),
            "sensitivity": score,
            "bits": bits,
            "importance": np.interp(control, t, importance),
            "route": (seq % 2).astype(np.int64),
            "preempt_seq": seq,
        },
        preemptions_s=preemptions,
        thresholds={"theta_fp": 0.5, "theta_compat": 1.5, "theta_redundancy": 1.0},
        events={
            "chunks": {
                "t_s": chunk_t,
                "observed_s": chunk_t - latency,
                "request_id": np.arange(1, len(chunk_t) + 1),
                "source": np.where(cloud, "cloud", "edge"),
                "bits": np.full(len(chunk_t), 8),
                "horizon": np.full(len(chunk_t), 16),
                "period_s": np.full(len(chunk_t), 0.05),
                "timing.total": np.where(cloud, 0.08, latency),
                "timing.round_trip": np.where(cloud, latency - 0.03, np.nan),
            },
            "executor": {
                "t_s": control,
                "state": state,
                "source": np.where(cloud, "cloud", "edge")[np.maximum(playing, 0)],
                "request_id": np.maximum(playing + 1, 0),
                "row": np.zeros(len(control)),
                "ticks": np.arange(len(control)),
                "starved_ticks": 7 + np.cumsum(state == 2),
            },
            "inference": {
                "t_s": second,
                "last_ms": np.full(len(second), 130.0),
                "cache_reuse": np.full(len(second), 0.5),
            },
            "link": {
                "t_s": second,
                "health": np.where(second % 20 == 7, 0, 3),
                "round_trip_ms": 2 + rng.random(len(second)),
                "round_trip_p95_ms": 5 + rng.random(len(second)),
            },
            "precision": {"t_s": control[::20], "bits": bits[::20], "sensitivity": score[::20]},
            "partition": {"t_s": control[::2], "route": seq[::2] % 2, "preempt_seq": seq[::2]},
        },
        frames=[
            Frame(topic, float(time), np.roll(image, int(8 * time), axis=1))
            for topic in ("/arm/camera/corner2", "/arm/camera/gripper")
            for time in np.arange(0.05, duration_s, max(0.5, duration_s / 300))
        ],
        quality=Quality(samples=len(t)),
    )


def bare_run() -> Run:
    """A replay of a recording with nothing in it but a damaged stretch of joint states."""
    found = Quality(
        samples=0,
        refused=12,
        notes=["'/arm/joint_states': 3.2 s off", "file ends within <a> message"],
    )
    found.counts.update({"not_finite": 12, "damaged_file": 1})
    return Run(bag="bare <run>", duration_s=2.0, messages=12, quality=found)
