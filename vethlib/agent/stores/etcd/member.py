"""A connection to whichever member of an etcd answers first, for work that is done once and then over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from vethlib.agent.stores.protocol import StoreError

from .address import Address
from .connection import Connection
from .refusal import Denied

__all__ = ["answering"]

T = TypeVar("T")


@contextmanager
def answering(address: Address, ask: Callable[[Connection], T]) -> Iterator[tuple[Connection, T]]:
    """A connection to the first member that answers a first question, and the answer; it is closed after the ``with``.

    Raises :class:`StoreError` with what each of them has said. What one of them does not allow, the others do not.
    """
    refusals: list[StoreError] = []
    for endpoint in address.endpoints:
        try:
            connection = Connection(address, endpoint)
        except Denied as error:  # a file of the address cannot be read
            refusals = [error]
            break
        with connection:
            try:
                connection.authenticate()
                answer = ask(connection)
            except Denied as error:
                refusals = [error]
                break
            except StoreError as error:
                refusals.append(error)
                continue
            try:
                yield connection, answer
            except StoreError as error:
                raise _plain(error) from None
            return
    reason = "; ".join(map(str, refusals))
    raise StoreError(reason, path=address.url, reason=reason, errno=refusals[-1].errno)


def _plain(error: StoreError) -> StoreError:
    """The error for those who know nothing of connections."""
    return StoreError(str(error), path=error.path, reason=error.reason, errno=error.errno)
