"""Call functions in a node: each in a separate thread, which enters the namespace of the node."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from types import CoroutineType
from typing import TypeVar

from vethlib._threads import start_kernel_thread

__all__ = ["begin_call", "name_of", "no_coroutine"]

T = TypeVar("T")


def begin_call(
    function: Callable[[], T],
    block: AbstractContextManager[object],
    name: str,
    node: str,
    ended: Callable[[], object] | None = None,
) -> Future[T]:
    """Call a function within `block` in a new thread; return a future with its result, and call `ended` at its end.

    `name` is the name of the function. Raises ThreadRefused.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            with block:
                result = no_coroutine(function(), name)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            if ended is not None:
                ended()

    future.set_running_or_notify_cancel()
    start_kernel_thread(work, f"{node}: {name}", f"a function in node {node}")
    return future


def no_coroutine(result: T, name: str) -> T:
    """Return the result of a function. Raises TypeError for a coroutine function, which has not done anything yet."""
    if isinstance(result, CoroutineType):
        result.close()
        raise TypeError(
            f"{name} is a coroutine function, and there is no event loop here: call asyncio.run() in a function"
        )
    return result


def name_of(function: Callable[..., object]) -> str:
    """Return the name of a function for messages."""
    return getattr(function, "__qualname__", type(function).__qualname__)
