"""The ``with`` blocks of a node, which can be nested, and entered in other threads and in other greenlets.

An interruption leaves no thread in a node. For that, the ``__exit__`` that ``with`` calls must be a C function (rule 3
of vethlib/ns/entering.py), and so belong to a single block, whereas a node is entered any number of times. But every
Python looks up ``__exit__`` before ``with`` calls ``__enter__``. So:

1. ``__exit__`` of a node is a descriptor (:class:`End`): each look-up makes a block that is still to be entered, and
   returns what ends it. ``__enter__`` enters the newest such block of its thread.
2. Blocks to enter are known by weak references: if the look-up led to nothing, because it was interrupted or came from
   ``hasattr()``, its block no longer exists. A signal handler that runs in between and uses ``with`` itself takes its
   own block, which is newer.
3. If ``__enter__`` is called without such a look-up, by an ExitStack or directly, the block is kept here, in a stack
   for each greenlet, where the call that ends it finds it. Python functions end such a block; they can be interrupted,
   as can those of ExitStack itself.
"""

from __future__ import annotations

import weakref
from typing import Protocol

from vethlib._primitives import local
from vethlib.ns import greenlets
from vethlib.ns.entering import Block

__all__ = ["Blocks", "End"]


class Blocks(local):
    """The blocks of one node in each thread."""

    def __init__(self) -> None:
        self._to_enter: list[weakref.ref[Block]] = []
        self._stacks: dict[int, list[Block]] = {}  # the blocks of rule 3, by greenlet

    def prepare(self) -> Block:
        """Return a new block for a ``with`` to enter; calling it ends the block."""
        block = Block(not_entered=self.leave)
        self._to_enter = [*(ref for ref in self._to_enter if ref() is not None), weakref.ref(block)]
        return block

    def take(self) -> Block:
        """Return the block to enter: that of a ``with``, or else a new block, which is kept until :meth:`leave`."""
        while self._to_enter:
            block = self._to_enter.pop()()
            if block is not None:
                return block
        block = Block()
        self._stacks.setdefault(greenlets.key(), []).append(block)
        return block

    def drop(self, block: Block) -> None:
        """Forget a block that could not be entered."""
        running = greenlets.key()
        stack = self._stacks.get(running, [])
        if block in stack:
            stack.remove(block)
        if not stack:
            self._stacks.pop(running, None)

    def leave(self) -> None:
        """End the last block that is kept here. Raises RuntimeError if there is none."""
        stack = self._stacks.get(greenlets.key())
        if not stack:
            raise RuntimeError("this node was not entered here")
        block = stack[-1]
        try:
            block.__exit__(None, None, None)
        finally:
            self.drop(block)


class _Node(Protocol):
    """A node, as far as its blocks are concerned."""

    _blocks: Blocks


class End:
    """The ``__exit__`` of a node."""

    def __get__(self, node: _Node | None, cls: type | None = None) -> object:
        return _leave if node is None else node._blocks.prepare()


def _leave(node: _Node, *_: object) -> None:
    node._blocks.leave()
