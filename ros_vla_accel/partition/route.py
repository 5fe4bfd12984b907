"""Edge or cloud for the next inference, as a state with an expiry date."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ros_vla_accel.partition.link import LinkState
from ros_vla_accel.partition.triggers import TriggerSignals

MODES = ("edge", "cloud", "auto", "critical")
CUTS = ("observation", "vision", "backbone")
ENCODINGS = ("raw", "jpeg", "png")

SILENT_S = 0.25
"""Joint samples older than this say nothing about the motion of now."""


class Route(IntEnum):
    """Routes of ``PartitionDecision.msg``."""

    EDGE = 0
    CLOUD = 1


@dataclass(frozen=True)
class Form:
    """How a request leaves the edge; encoding is that of the images, whatever the cut: a policy
    that cannot spare the time for its stages sends the images instead."""

    cut: str = "observation"
    encoding: str = "jpeg"

    @property
    def name(self) -> str:
        """What the edge calls it when it tells its cost: the encoding of images, or the cut."""
        return self.encoding if self.cut == "observation" else self.cut


WHOLE = Form()


@dataclass(frozen=True)
class Decision:
    """The fields of ``PartitionDecision.msg``.

    cut, encoding: how a request leaves the edge. preempt_seq: a change means "replace the running
    chunk". valid_until_ns: robot-side clock; later it means edge. deadline_s: how long after the
    observation a cloud answer is awaited. reuse: the chunk in play may be reused for as long as it
    is as good as a new one, see ``partition.replan``; not past valid_until_ns. critical: some
    joint sample since the decision before was.
    """

    route: Route
    valid_until_ns: int
    preempt_seq: int
    cut: str
    encoding: str
    deadline_s: float
    reason: str
    importance: float = 0.0
    reuse: bool = False
    critical: bool = False


@dataclass(frozen=True)
class RouteConfig:
    """mode: "edge" and "cloud" always, "auto": the cloud while the link is healthy, "critical":
    the cloud at critical moments alone, if the link is healthy then, as in the paper.

    validity_s: how long a decision stands without a new one; renew it at least three times as
    often. deadline_s: longest wait for a cloud answer, counted from the observation. preempt:
    whether critical motion replaces the running chunk where the route is the cloud. reuse:
    whether a chunk is played to its end while nothing is critical (redundancy-aware reuse), given
    that the triggers see the motion.
    """

    mode: str = "auto"
    validity_s: float = 0.5
    deadline_s: float = 0.3
    preempt: bool = True
    reuse: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is '{self.mode}'; choose from {', '.join(MODES)}")
        for key in ("validity_s", "deadline_s"):
            if not 0 < getattr(self, key) <= 60:
                raise ValueError(f"{key} is {getattr(self, key)}; it must lie in 0..60 s")


class RouteDecider:
    """The plain class behind ``partition_manager``'s decision."""

    def __init__(self, config: RouteConfig) -> None:
        self.config = config
        self.preempt_seq = 0
        self._peak: TriggerSignals | None = None
        self._newest: TriggerSignals | None = None
        self._preempted_ns: int | None = None
        self._calm = False

    def note(self, signals: TriggerSignals) -> bool:
        """Each joint sample's; the next decision tells the most important of them.

        True if a decision is due at once: the one that stands lets the chunk in play go on to
        its end, and this sample is critical, or the triggers do not see any more.
        """
        self._newest = signals
        peak = self._peak
        if peak is None or (peak.critical, peak.importance) < (
            signals.critical,
            signals.importance,
        ):
            self._peak = signals
        return self._calm and (signals.critical or not signals.sees)

    def preempt(self, now_ns: int, health: int = LinkState.HEALTHY) -> bool:
        """The dispatcher wants the running chunk replaced: True if so from the next decision on.

        Not at the edge, whose inference takes about as long as the rest of the chunk.
        """
        if not self.config.preempt or self._cloud(LinkState(health)) is Route.EDGE:
            return False
        self._preempted_ns = now_ns
        self.preempt_seq += 1
        return True

    def decide(self, now_ns: int, health: int, form: Form = WHOLE) -> Decision:
        """The decision as of now. health: a ``LinkState``, of the link to the worker. form: how
        requests leave the edge, see ``SplitPlanner``."""
        config = self.config
        link = LinkState(health)
        reason = f"route {config.mode}"
        if config.mode in ("auto", "critical"):
            reason = f"cloud {link.name.lower()}"
        peak, self._peak = self._peak, None
        if peak is not None and peak.critical:
            reason += f", critical {peak.reason}"
        critical = peak is not None and peak.critical
        reuse = config.reuse and self._sees(now_ns)
        self._calm = reuse and not critical
        return Decision(
            route=self._route(now_ns, link),
            valid_until_ns=now_ns + round(config.validity_s * 1e9),
            preempt_seq=self.preempt_seq,
            cut=form.cut,
            encoding=form.encoding,
            deadline_s=config.deadline_s,
            reason=reason,
            importance=0.0 if peak is None else peak.importance,
            reuse=reuse,
            critical=critical,
        )

    def _sees(self, now_ns: int) -> bool:
        """Whether the triggers know the motion of now."""
        newest = self._newest
        if newest is None or not newest.sees:
            return False
        return abs(now_ns - newest.stamp_ns) <= SILENT_S * 1e9

    def _route(self, now_ns: int, link: LinkState) -> Route:
        if self.config.mode != "critical":
            return self._cloud(link)
        # As long as its answer is awaited; a clock that went back ends it.
        since_ns = None if self._preempted_ns is None else now_ns - self._preempted_ns
        if since_ns is None or not 0 <= since_ns <= self.config.deadline_s * 1e9:
            return Route.EDGE
        return self._cloud(link)

    def _cloud(self, link: LinkState) -> Route:
        """The route of a request that is meant for the cloud."""
        if self.config.mode in ("auto", "critical"):
            return Route.CLOUD if link is LinkState.HEALTHY else Route.EDGE
        return Route.CLOUD if self.config.mode == "cloud" else Route.EDGE
