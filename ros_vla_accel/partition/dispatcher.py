"""RAPID's dispatcher: which critical moments are worth a new chunk."""

from __future__ import annotations

from ros_vla_accel.partition.triggers import TriggerConfig, TriggerSignals


class Dispatcher:
    """Critical signals to preemptions of the running chunk, at most one per ``cooldown_s``.

    | state    | critical signal                    | cooldown over |
    |----------|------------------------------------|---------------|
    | watching | preempt, to cooling                |               |
    | cooling  | counted in ``suppressed``, no more | to watching   |

    Time is that of the signals' stamps alone, so that a replay preempts where the robot did. A
    critical signal older than the last preemption comes from a clock that was reset: watching.
    arXiv:2603.07949.
    """

    def __init__(self, config: TriggerConfig | None = None) -> None:
        self._cooldown_ns = round((config or TriggerConfig()).cooldown_s * 1e9)
        self._preempted_ns: int | None = None
        self.preemptions = 0
        self.suppressed = 0

    def update(self, signals: TriggerSignals) -> bool:
        """Whether to preempt now. A moment that stays critical preempts after each cooldown."""
        if not signals.critical:
            return False
        last_ns = self._preempted_ns
        if last_ns is not None and 0 <= signals.stamp_ns - last_ns < self._cooldown_ns:
            self.suppressed += 1
            return False
        self._preempted_ns = signals.stamp_ns
        self.preemptions += 1
        return True
