"""Futures, and tasks that run callbacks and coroutines on an executor."""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .executors import Executor


class Future:
    """A result that comes later; done callbacks run on the executor, if it has one."""

    def __init__(self, *, executor: Executor | None = None) -> None:
        self._lock = threading.Lock()
        self._done = False
        self._cancelled = False
        self._result: Any = None
        self._exception: BaseException | None = None
        self._exception_fetched = False
        self._callbacks: list[Callable[[Future], Any]] = []
        self._executor: weakref.ref[Executor] | None = None
        self._set_executor(executor)

    def __del__(self) -> None:
        if self._exception is not None and not self._exception_fetched:
            print(
                "The following exception was never retrieved: " + str(self._exception),
                file=sys.stderr,
            )

    def __await__(self) -> Generator[Any, None, Any]:
        while not self._done:
            yield self
        return self.result()

    def cancel(self) -> None:
        with self._lock:
            if self._done:
                return
            self._cancelled = True
            self._done = True
        self._notify()

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._done

    def result(self) -> Any:
        """The result, or raises the exception; None while not done."""
        if self._exception is not None:
            self._exception_fetched = True
            raise self._exception
        return self._result

    def exception(self) -> BaseException | None:
        self._exception_fetched = True
        return self._exception

    def set_result(self, result: Any) -> None:
        with self._lock:
            self._result = result
            self._done = True
            self._cancelled = False
        self._notify()

    def set_exception(self, exception: BaseException) -> None:
        with self._lock:
            self._exception = exception
            self._exception_fetched = False
            self._done = True
            self._cancelled = False
        self._notify()

    def _set_executor(self, executor: Executor | None) -> None:
        self._executor = None if executor is None else weakref.ref(executor)

    def _notify(self) -> None:
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._schedule(callback)

    def _schedule(self, callback: Callable[[Future], Any]) -> None:
        executor = self._executor() if self._executor is not None else None
        if executor is not None and not isinstance(callback, _Direct):
            executor.create_task(callback, self)
            return
        try:
            callback(self)
        except Exception as error:
            print(f"Unhandled exception in done callback: {error}", file=sys.stderr)

    def add_done_callback(self, callback: Callable[[Future], Any]) -> None:
        """Calls ``callback(future)`` when done; at once if it is."""
        with self._lock:
            if not self._done:
                self._callbacks.append(callback)
                return
        self._schedule(callback)

    def remove_done_callback(self, callback: Callable[[Future], Any]) -> bool:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
                return True
            return False

    def _when_done(self, resume: Callable[[], None]) -> None:
        """Like add_done_callback, but ``resume()`` is called directly, on any thread."""

        def call(_: Future) -> None:
            resume()

        with self._lock:
            if not self._done:
                self._callbacks.insert(0, _Direct(call))
                return
        resume()


class _Direct:
    """A done callback that is never put on an executor."""

    def __init__(self, call: Callable[[Future], Any]) -> None:
        self.call = call

    def __call__(self, future: Future) -> None:
        self.call(future)


class Task(Future):
    """Runs a callable or coroutine; made by `Executor.create_task`."""

    def __init__(
        self,
        handler: Callable[..., Any] | Coroutine[Any, Any, Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        executor: Executor | None = None,
    ) -> None:
        super().__init__(executor=executor)
        self._handler, self._args, self._kwargs = handler, args, kwargs or {}
        self._coroutine = handler if inspect.iscoroutine(handler) else None
        self._executing = threading.Lock()

    def __call__(self) -> Any:
        """One step; returns what the coroutine waits for (a Future or None), or None if done."""
        if self._done or not self._executing.acquire(blocking=False):
            return None
        try:
            if self._coroutine is None:
                outcome = self._handler(*self._args, **self._kwargs)  # type: ignore[operator]
                if not inspect.iscoroutine(outcome):
                    self.set_result(outcome)
                    return None
                self._coroutine = outcome
            return self._coroutine.send(None)
        except StopIteration as stop:
            self.set_result(stop.value)
        except Exception as error:
            self.set_exception(error)
        finally:
            self._executing.release()
        return None

    def executing(self) -> bool:
        return self._executing.locked()
