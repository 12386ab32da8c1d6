"""Connect to the first member of an etcd that answers, for a single task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.stores.protocol import StoreError

from .address import Address
from .connection import Connection
from .refusal import Denied

__all__ = ["answering"]

T = TypeVar("T")


@contextmanager
def answering(
    address: Address, ask: Callable[[Connection], T], *, limits: Limits = DEFAULT
) -> Iterator[tuple[Connection, T]]:
    """Connect to the first member that answers `ask`, and yield the connection, closed afterwards, and the answer.

    Raises :class:`StoreError` with the errors of all members; after a :class:`Denied`, no other member is asked.
    """
    refusals: list[StoreError] = []
    for endpoint in address.endpoints:
        try:
            connection = Connection(address, endpoint, limits=limits)
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
    last = refusals[-1]
    raise StoreError(reason, path=address.url, reason=reason, errno=last.errno, code=last.code)


def _plain(error: StoreError) -> StoreError:
    """Return the error without the subclass, which matters to connections only."""
    plain = StoreError(str(error), path=error.path, reason=error.reason, errno=error.errno, code=error.code)
    plain.names, plain.done, plain.left = error.names, error.done, error.left
    return plain
