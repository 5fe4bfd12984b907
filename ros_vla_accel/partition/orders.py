"""What a ``RequestScheduler`` asks its node to do, and the timing it works by."""

from __future__ import annotations

from dataclasses import dataclass

from ros_vla_accel.contracts import PolicySpec


@dataclass(frozen=True)
class StartEdge:
    """Run the edge policy on the observation of ``stamp_ns``, now; then call ``on_edge_done``."""

    request_id: int
    episode_id: int
    stamp_ns: int
    reason: str


@dataclass(frozen=True)
class StartCloud:
    """Publish the observation of ``stamp_ns`` as an inference_request."""

    request_id: int
    episode_id: int
    stamp_ns: int
    deadline_ns: int
    cut: str
    encoding: str
    reason: str


@dataclass(frozen=True)
class Stop:
    """Publish a chunk of zero rows: the instruction was taken back."""

    request_id: int
    episode_id: int


Order = StartEdge | StartCloud | Stop


@dataclass(frozen=True)
class SchedulerConfig:
    """Timing of the requests.

    period_s, horizon, replan_rows, widths: of the policy. executor_timeout_s: steady-clock silence
    after which the executor counts as gone. idle_period_s: time between inferences while it is
    gone. edge_p95_s: the edge's inference time until it has been measured. grace_periods: how long
    an answer counts as in play before executor_state must show it. stop_repeat_s: time between
    stops while the executor still plays. retry_s: rest after a failed edge inference. fresh_s:
    with reuse of chunks, how long one is as good as new to a preemption.
    """

    period_s: float = 0.05
    horizon: int = 16
    replan_rows: int = 8
    executor_timeout_s: float = 1.0
    idle_period_s: float = 1.0
    edge_p95_s: float = 0.2
    grace_periods: int = 3
    stop_repeat_s: float = 0.2
    retry_s: float = 0.5
    fresh_s: float = 0.3
    widths: tuple[int, ...] = (16,)

    def __post_init__(self) -> None:
        if not 0 < self.replan_rows <= self.horizon:
            raise ValueError(
                f"replan_rows {self.replan_rows} must lie in 1..horizon ({self.horizon})"
            )
        for key in ("period_s", "executor_timeout_s", "idle_period_s", "stop_repeat_s"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} must be positive; got {getattr(self, key)}")

    @classmethod
    def of_policy(cls, spec: PolicySpec, **settings: float) -> SchedulerConfig:
        """Takes period, horizon, replan_rows and widths from the policy."""
        return cls(
            period_s=spec.period_s,
            horizon=spec.horizon,
            replan_rows=spec.replan_rows,
            widths=tuple(spec.widths),
            **settings,  # type: ignore[arg-type]
        )
