"""Which namespace references may lead elsewhere than before: one descriptor, and the references by which it was asked.

A reference leads to a file (netns:, path:), which `paths.py` follows, or to something in /proc that goes with its
process (pid:, path:/proc/42/ns/net), of whose end `processes.py` hears; or to both, where the file is a symbolic link
into /proc. A microservice leads to what its resolver answers. Home and fd:N are what they are.
"""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing

from vethlib.errors import NetlinkError, NetnsNotFound, SessionClosed, VethError, errno_text
from vethlib.ns import Reference, parse
from vethlib.ns import Resolver as Answers
from vethlib.ns.reference import not_opened

from .paths import Paths
from .processes import Processes, is_of_process
from .resolver import Remarks, Resolver

__all__ = ["Follower"]

MICROSERVICE = "microservice:"
AGAIN = 1.0  # seconds until what could not be followed is tried again


class Follower:
    """Follows namespace references, and says which ones may lead to something else than before.

        follower.follow(["blue", "pid:42"])
        select.select([follower], [], [], follower.due())
        for ref in follower.changed(): ...

    Follow a reference before you look where it leads; then no change is missed. A reference may be told though nothing
    has changed. Nothing here keeps a namespace alive, no thread is started, and no call waits. Not for several threads
    at once. `resolver` says what microservices are; a plain function is asked, but cannot tell that its answers have
    changed. It stays the caller's to close.

    What is not heard: a process that moves to another namespace; see `paths.py` and `processes.py` for the rest.

    Raises :class:`NetlinkError` if there are no descriptors left for it.
    """

    def __init__(self, resolver: Answers | None = None) -> None:
        self._resolver = resolver
        self._followed: dict[str, str] = {}  # reference → the file that it leads to, "" for none
        self._refs: dict[str, set[str]] = {}  # the other way round
        self._unfollowable: set[str] = set()  # references to processes, for want of a descriptor
        self._again = 0.0
        self._torn = False
        self._closed = False
        self._news = resolver.fileno() if isinstance(resolver, Resolver) else -1
        self._remark: Callable[[str], str] | None = resolver.remark if isinstance(resolver, Remarks) else None
        try:
            with ExitStack() as undo:
                self._epoll = undo.enter_context(select.epoll())
                self._processes = Processes(self._epoll)
                self._paths = undo.enter_context(closing(Paths(self._epoll)))
                if self._news >= 0:
                    self._epoll.register(self._news, select.EPOLLIN)
                self._epoll.poll(0)  # the mount table, which is news once
                undo.pop_all()
        except OSError as error:
            raise _not_made(error) from None

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor; twice is harmless."""
        if not self._closed:
            self._closed = True
            self._processes.close()
            self._paths.close()
            self._epoll.close()

    def fileno(self) -> int:
        """A descriptor that is readable when :meth:`changed` may have something."""
        self._check()
        return self._epoll.fileno()

    def due(self) -> float | None:
        """In how many seconds to call :meth:`changed` though the descriptor is not readable; None: need not."""
        self._check()
        if self._torn:
            return 0.0
        left = self._paths.due()
        if self._unfollowable:
            again = max(0.0, self._again - time.monotonic())
            left = again if left is None else min(left, again)
        return left

    def _check(self) -> None:
        if self._closed:
            raise SessionClosed("this follower is closed")

    # --- what is followed

    def follow(self, refs: Iterable[str]) -> None:
        """Follow these; one that is followed already is not followed twice.

        Raises :class:`InvalidValue` for what is no reference, and :class:`NetlinkError` where descriptors run out (a
        process takes one). Then none of `refs` is followed that was not before.
        """
        self._check()
        new: list[str] = []
        try:
            for ref in refs:
                if ref not in self._followed:
                    new.append(ref)
                    reference = parse(ref)
                    self._followed[ref] = ""
                    if reference.kind == "microservice":
                        self._ask(ref, reference.value)
                    else:
                        self._attach(ref, reference)
        except BaseException:
            self.unfollow(new)
            raise

    def unfollow(self, refs: Iterable[str]) -> None:
        """Follow these no more; one that is not followed is no error."""
        self._check()
        for ref in refs:
            if ref in self._followed:
                self._detach(ref)
                del self._followed[ref]

    def gone(self, ref: str) -> str:
        """``process 42 is gone`` where `ref` led to a process that has ended since it was followed; else "".

        Its number may have another process by now, which is not meant: to mean that one, unfollow and follow anew. What
        a symbolic link or a resolver says is taken anew when they change. A microservice whose process has ended ``is
        not running``, which its resolver may hear of later.
        """
        reason = self._processes.gone(ref)
        return f"microservice {ref.removeprefix(MICROSERVICE)} is not running" if _is_label(ref) and reason else reason

    def remark(self, ref: str) -> str:
        """What its resolver has to say of a microservice; "" for nothing. Another one makes `ref` a changed one."""
        return self._remark(ref.removeprefix(MICROSERVICE)) if self._remark is not None and _is_label(ref) else ""

    def _attach(self, ref: str, reference: Reference | None) -> None:
        """Follow what `ref` leads to: the file or the process of `reference`."""
        if reference is None or reference.kind in ("home", "fd", "microservice"):
            return
        path = reference.path
        if reference.kind == "path":
            path = "/" + "/".join(name for name in path.split("/") if name not in ("", "."))
        if reference.kind != "netns" and is_of_process(path):
            of_process = path
        else:
            self._followed[ref] = path
            refs = self._refs.get(path)
            if refs is None:
                self._refs[path] = {ref}
            else:
                refs.add(ref)
            of_process = self._paths.follow(path)
        if of_process:
            try:
                self._processes.follow(ref, of_process)
            except OSError as error:
                raise not_opened(reference, error) from None

    def _detach(self, ref: str) -> None:
        self._unfollowable.discard(ref)
        self._processes.unfollow(ref)
        path, self._followed[ref] = self._followed[ref], ""
        refs = self._refs.get(path)
        if refs is not None:
            refs.discard(ref)
            if not refs:
                del self._refs[path]
                self._paths.unfollow(path)

    # --- what has changed

    def changed(self) -> set[str]:
        """The followed references that may lead to something else than at the last call. Does not wait.

        If a call is interrupted (KeyboardInterrupt), the next one tells all of them.
        """
        self._check()
        everything, self._torn = self._torn, True
        ready = {fd for fd, _ in self._epoll.poll(0)}
        told = self._processes.ended(ready)
        for path in self._paths.changed(ready, everything):
            for ref in self._refs[path]:
                self._pass_on(ref, path)
                told.add(ref)
        if self._news in ready or everything:
            told |= self._ask_again(everything)
        if self._unfollowable and self._again <= time.monotonic():
            told |= self._try_again()
        if everything:
            told = set(self._followed)
        self._torn = False
        return told

    def _pass_on(self, ref: str, path: str) -> None:
        """Follow the process that symbolic links lead to from `path`, now that they may lead to another."""
        self._processes.unfollow(ref)
        of_process = self._paths.of_process(path)
        if of_process:
            try:
                self._processes.follow(ref, of_process)
            except OSError:
                self._put_off(ref)

    def _ask(self, ref: str, label: str) -> None:
        """Follow what a microservice is now; what it was, where that cannot be known."""
        if self._resolver is None:
            return
        try:
            answer = parse(self._resolver(label))
        except NetnsNotFound:
            answer = None
        except VethError:
            return
        self._detach(ref)
        self._attach(ref, answer)

    def _ask_again(self, everything: bool) -> set[str]:
        labels = self._resolver.changed() if isinstance(self._resolver, Resolver) else ()
        if labels is None or everything:
            told = {ref for ref in self._followed if _is_label(ref)}
        else:
            told = {ref for label in labels if (ref := MICROSERVICE + label) in self._followed}
        for ref in told:
            self._ask_once_more(ref)
        return told

    def _ask_once_more(self, ref: str) -> None:
        try:
            self._ask(ref, ref.removeprefix(MICROSERVICE))
        except VethError:
            self._put_off(ref)

    def _put_off(self, ref: str) -> None:
        self._unfollowable.add(ref)
        self._again = time.monotonic() + AGAIN

    def _try_again(self) -> set[str]:
        refs, self._unfollowable = self._unfollowable, set()
        for ref in refs:
            if _is_label(ref):
                self._ask_once_more(ref)
            else:
                self._pass_on(ref, self._followed[ref])
        return refs


def _is_label(ref: str) -> bool:
    return ref.startswith(MICROSERVICE)


def _not_made(error: OSError) -> NetlinkError:
    reason = errno_text(error.errno or 0)
    if error.errno == errno.EMFILE:
        reason = "close some descriptors, or raise their limit (ulimit -n) or the sysctl fs.inotify.max_user_instances"
    return NetlinkError(f"cannot follow namespaces: {reason}", errno=error.errno or 0)
