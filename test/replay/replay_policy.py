"""A policy that says what it was asked."""

from __future__ import annotations

import numpy as np

from ros_vla_accel.contracts import ActionChunk, CameraSpec, PolicySpec


class Asked:
    spec = PolicySpec(
        name="asked",
        cameras=(CameraSpec("corner2", 8, 8),),
        state_names=("right_j0",),
        action_names=("vx", "vy", "vz", "gripper"),
        horizon=16,
        period_s=0.05,
        action_kind="cartesian_velocity",
    )

    def infer(self, requests):
        return [
            ActionChunk(
                actions=np.full(
                    (16, 4),
                    [
                        request.observation.images["corner2"][0, 0, 0],
                        request.observation.state[0],
                        request.executed_rows,
                        request.seed,
                    ],
                    np.float32,
                ),
                period_s=0.05,
                stamp_ns=request.observation.stamp_ns,
                request_id=request.request_id,
                episode_id=request.episode_id,
                source="edge",
                activation_bits=request.activation_bits,
            )
            for request in requests
        ]

    def reset(self, episode_id):
        pass


def make():
    return Asked()
