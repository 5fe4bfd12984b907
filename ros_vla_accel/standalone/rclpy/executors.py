"""Executors: wait for work without polling and run callbacks.

One wait set per executor keeps all entities attached, so a wait costs the same for one
subscription as for twenty. Threads take turns: the one that waits runs the callback that it was
woken for, while another takes over the waiting, so no callback changes threads.
"""

# ruff: noqa: N818 (names are rclpy's)

from __future__ import annotations

import inspect
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..dds import library
from . import signals
from .context import Context
from .exceptions import RCLError
from .task import Future, Task
from .utilities import get_default_context

if TYPE_CHECKING:
    from .node import Node

_GUARD = -1


class TimeoutException(Exception):
    """Nothing was ready in time."""


class ShutdownException(Exception):
    """The executor was shut down."""


class ExternalShutdownException(Exception):
    """The context ended while spinning."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)


class ConditionReachedException(Exception):
    """The future that was spun for is done."""


class Executor:
    """Base of the executors; see `SingleThreadedExecutor`, `MultiThreadedExecutor`."""

    def __init__(self, *, context: Context | None = None) -> None:
        self._context = context or get_default_context()
        if not self._context.ok():
            raise RCLError("the given context is not valid: call rclpy.init()")
        participant = self._context.graph.participant
        self._guard = participant.guard()
        self._waits = participant.wait_set()
        self._waits.attach(self._guard.handle, _GUARD)
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._nodes: list[Node] = []
        self._entities: dict[int, Any] = {}
        self._timers: tuple[Any, ...] = ()
        self._tasks: deque[Task] = deque()
        self._ready: deque[Any] = deque()
        self._waiting = False
        self._is_shutdown = False
        self._running = 0
        self._idle = threading.Condition()
        self._context.on_shutdown(self.wake)
        signals.add_waker(self._guard.set)

    # -- what may be called from any thread

    @property
    def context(self) -> Context:
        return self._context

    def wake(self) -> None:
        """Lets the thread that waits look again."""
        if not self._is_shutdown:
            self._guard.set()

    def create_task(
        self, callback: Callable[..., Any] | Coroutine[Any, Any, Any], *args: Any, **kwargs: Any
    ) -> Task:
        """Runs a callable or coroutine on this executor."""
        task = Task(callback, args, kwargs, executor=self)
        self._enqueue(task)
        return task

    def _enqueue(self, task: Task) -> None:
        self._tasks.append(task)
        self.wake()

    def add_node(self, node: Node) -> bool:
        """True if the node was not here before; it leaves the executor it was in."""
        with self._lock:
            if self._is_shutdown or node in self._nodes:
                return False
            self._nodes.append(node)
        node.executor = self
        return True

    def remove_node(self, node: Node) -> None:
        with self._lock:
            if node not in self._nodes:
                return
            self._nodes.remove(node)
        node._rclpy_core.leave(self)

    def get_nodes(self) -> list[Node]:
        return list(self._nodes)

    def _attach(self, entity: Any) -> None:
        """Entities call this; ``wait_handle`` is a C handle, None for timers."""
        with self._lock:
            if self._is_shutdown:
                return
            if entity.wait_handle is None:
                self._timers = (*self._timers, entity)
            else:
                self._entities[entity.wait_handle] = entity
                self._waits.attach(entity.wait_handle, entity.wait_handle)
        self.wake()

    def _detach(self, entity: Any) -> None:
        with self._lock:
            if entity.wait_handle is None:
                self._timers = tuple(timer for timer in self._timers if timer is not entity)
            elif self._entities.pop(entity.wait_handle, None) and not self._is_shutdown:
                self._waits.detach(entity.wait_handle)
        self.wake()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stops, waits for running callbacks; False if they did not end in time."""
        if not self._is_shutdown:
            self._is_shutdown = True
            self._guard.set()
        with self._idle:
            done = self._idle.wait_for(lambda: self._running == 0, timeout_sec)
        if not done:
            return False
        for node in self.get_nodes():
            self.remove_node(node)
        signals.remove_waker(self._guard.set)
        with self._turn, self._lock:
            self._waits.delete()
            self._guard.delete()
        return True

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()

    # -- spinning

    def spin(self) -> None:
        """Runs callbacks until shutdown. Raises ExternalShutdownException if the context ends."""
        while self._context.ok() and not self._is_shutdown:
            self.spin_once()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Runs one callback, or returns after ``timeout_sec`` (None or negative: no limit)."""
        self._spin_once(_deadline(timeout_sec), None)

    def spin_once_until_future_complete(
        self, future: Future, timeout_sec: float | None = None
    ) -> None:
        future._when_done(self.wake)
        self._spin_once(_deadline(timeout_sec), future.done)

    def spin_until_future_complete(self, future: Future, timeout_sec: float | None = None) -> None:
        """Runs callbacks until the future is done, the time is over or the context ends."""
        deadline = _deadline(timeout_sec)
        future._when_done(self.wake)
        while self._context.ok() and not future.done() and not self._is_shutdown:
            if deadline is not None and time.monotonic_ns() >= deadline:
                return
            self._spin_once(deadline, future.done)

    def _spin_once(self, deadline: int | None, condition: Callable[[], bool] | None) -> None:
        try:
            work = self._next_work(deadline, condition)
        except (TimeoutException, ShutdownException, ConditionReachedException):
            return
        self._run(work)

    # -- finding work; one thread at a time

    def _next_work(
        self, deadline: int | None, condition: Callable[[], bool] | None = None
    ) -> Callable[[], None]:
        """Waits for something to do, claims it and returns it ready to run."""
        with self._turn:
            while True:
                if self._is_shutdown:
                    raise ShutdownException()
                if not self._context.ok():
                    raise ExternalShutdownException()
                if condition is not None and condition():
                    raise ConditionReachedException()
                work, due = self._claim_work()
                if work is not None:
                    with self._idle:
                        self._running += 1
                    return work
                self._wait(deadline, due)

    def _claim_work(self) -> tuple[Callable[[], None] | None, int | None]:
        """Work that can start now, else when the next timer is due (steady ns, None: never)."""
        if self._tasks:
            task = self._tasks.popleft()
            return partial(self._step, task, None), None
        due: int | None = None
        if self._timers:
            now = time.monotonic_ns()
            for timer in self._timers:
                at = timer._due(now)
                if at is None:
                    continue
                if at > now:
                    due = at if due is None or at < due else due
                elif timer.callback_group.claim(timer, self.wake):
                    return partial(self._call, timer, timer._fire), None
        while self._ready:
            entity = self._entities.get(self._ready.popleft())
            if entity is None:
                continue
            if not entity.callback_group.claim(entity, lambda parked=entity: self._unpark(parked)):
                # Still triggered, so it must leave the wait set, or waiting would not block.
                self._waits.detach(entity.wait_handle)
                continue
            call = None
            try:
                call = entity._take()
            finally:
                if call is None:
                    entity.callback_group.release(entity)
            if call is not None:
                return partial(self._call, entity, call), None
        return None, due

    def _unpark(self, entity: Any) -> None:
        """Waits again for an entity that was turned away from its group."""
        with self._lock:
            if self._is_shutdown or entity.wait_handle not in self._entities:
                return
            self._waits.attach(entity.wait_handle, entity.wait_handle)
        self.wake()

    def _wait(self, deadline: int | None, due: int | None) -> None:
        until = deadline if due is None else due if deadline is None else min(deadline, due)
        timeout = library.INFINITY
        if until is not None:
            timeout = until - time.monotonic_ns()
            if timeout <= 0 and deadline is not None and until == deadline:
                timeout = 0
        numbers = self._waits.wait(max(0, timeout))
        for number in numbers:
            if number == _GUARD:
                self._guard.clear()
            else:
                self._ready.append(number)
        if not numbers and deadline is not None and time.monotonic_ns() >= deadline:
            raise TimeoutException()

    # -- running it

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _call(self, entity: Any, call: Callable[[], Any]) -> None:
        """Runs a callback; its group is free again when it, or its coroutine, has ended."""
        coroutine = None
        try:
            coroutine = call()
            if not inspect.iscoroutine(coroutine):
                coroutine = None
        finally:
            if coroutine is None:
                entity.callback_group.release(entity)
        if coroutine is not None:
            self._step(Task(coroutine, executor=self), entity)

    def _step(self, task: Task, entity: Any) -> None:
        awaited = task()
        if not task.done():
            again = _Continuation(self, task, entity)
            if isinstance(awaited, Future):
                awaited._when_done(again)
            else:
                again()
            return
        if entity is not None:
            entity.callback_group.release(entity)
        if task._exception is not None:
            task.result()  # raises it where the executor spins, as rclpy does


class _Continuation:
    """Puts a suspended task back on its executor."""

    def __init__(self, executor: Executor, task: Task, entity: Any) -> None:
        self._executor, self._task, self._entity = executor, task, entity

    def __call__(self) -> None:
        executor, task, entity = self._executor, self._task, self._entity
        if entity is None:
            executor._enqueue(task)
        else:
            executor._enqueue(Task(lambda: executor._step(task, entity)))


def _deadline(timeout_sec: float | None) -> int | None:
    if timeout_sec is None or timeout_sec < 0:
        return None
    return time.monotonic_ns() + int(timeout_sec * 1e9)


class SingleThreadedExecutor(Executor):
    """Runs callbacks one after another in the thread that spins."""


class MultiThreadedExecutor(Executor):
    """Runs callbacks in ``num_threads`` threads (default: one per processor, at least two)."""

    def __init__(self, num_threads: int | None = None, *, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._num_threads = num_threads or max(2, len(os.sched_getaffinity(0)))

    def spin(self) -> None:
        """Runs callbacks until shutdown; an exception of any of them is raised here."""
        with self._workers() as stop:
            while self._context.ok() and not self._is_shutdown and not stop.is_set():
                self._spin_once(None, stop.is_set)

    def spin_until_future_complete(self, future: Future, timeout_sec: float | None = None) -> None:
        with self._workers() as stop:
            future._when_done(stop.set)
            super().spin_until_future_complete(future, timeout_sec)

    @contextmanager
    def _workers(self) -> Iterator[threading.Event]:
        """The threads beside the one that spins; they leave once the event is set."""
        stop, failures = threading.Event(), []

        def work() -> None:
            try:
                while not stop.is_set():
                    self._spin_once(None, stop.is_set)
            except ExternalShutdownException:
                pass
            except BaseException as error:
                failures.append(error)
                stop.set()
            self.wake()  # The next thread looks whether it must leave, too.

        for index in range(1, self._num_threads):
            threading.Thread(target=work, name=f"executor-{index}", daemon=True).start()
        try:
            yield stop
        finally:
            stop.set()
            self.wake()
        if failures:
            raise failures[0]
