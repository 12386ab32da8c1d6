"""Follow namespace references: one descriptor, which becomes readable when some may lead elsewhere.

A reference leads to a file (netns:, path:), which `paths.py` follows, or to a file in /proc that ends with its process
(pid:, path:/proc/42/ns/net): `processes.py` follows the end of the process, `whereabouts.py` its moves to other
namespaces. A symbolic link into /proc leads to both. A microservice leads to the answer of its resolver. The home
namespace and fd:N never change.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress

from vethlib._closing import Closing
from vethlib._primitives import select, time
from vethlib._trusted import MOST_NAMES
from vethlib.errors import NetlinkError, NetnsNotFound, SessionClosed, VethError, belongs_to_parent, errno_text
from vethlib.linkref import check_several
from vethlib.ns import Reference, parse
from vethlib.ns import Resolver as Answers
from vethlib.ns.deadline import earliest
from vethlib.ns.reference import not_opened, resolved

from .paths import Paths
from .processes import Processes, is_of_process
from .questions import changed_labels, remark_of
from .resolver import Remarks, Resolver
from .whereabouts import Whereabouts

__all__ = ["Follower"]

_log = logging.getLogger("vethlib.agent")

MICROSERVICE = "microservice:"
AGAIN = 1.0  # seconds between attempts to follow a reference, or to ask a resolver that failed


class Follower(Closing):
    """Follow namespace references, and report which may lead to another namespace than before.

        follower.follow(["blue", "pid:42"])
        select.select([follower], [], [], follower.due())
        print(follower.changed())

    Follow a reference before you resolve it, so that no change is missed. A reference may be reported although
    nothing has changed. It does not keep namespaces alive, start threads or wait. It must not be used by several
    threads at once. `resolver` resolves microservices; a plain function works, too, but cannot report that its answers
    have changed. The caller closes it.

    There is no event when a process moves to another namespace, nor for files behind /proc/42/root and the like. So
    :meth:`moved` checks these when :meth:`moves_fileno` is readable. `paths.py` and `processes.py` list other changes
    without an event.

    Raises :class:`NetlinkError` if no descriptors are left.
    """

    def __init__(self, resolver: Answers | None = None) -> None:
        self._resolver = resolver
        self._followed: dict[str, str] = {}  # the file of each reference, "" for none
        self._refs: dict[str, set[str]] = {}  # the inverse
        self._unfollowable: set[str] = set()  # references to processes for which no descriptor was left
        self._again = 0.0
        self._torn = False
        self._pid = os.getpid()
        self._closed = False
        self._resolver_fd = resolver.fileno() if isinstance(resolver, Resolver) else -1
        self._remark: Callable[[str], str] | None = resolver.remark if isinstance(resolver, Remarks) else None
        self._ask_at: float | None = None  # when a resolver that could not report its changes is asked again
        try:
            with ExitStack() as undo:
                self._epoll = undo.enter_context(select.epoll())
                self._processes = Processes(self._epoll)
                self._whereabouts = undo.enter_context(closing(Whereabouts()))
                self._paths = undo.enter_context(closing(Paths(self._epoll)))
                if self._resolver_fd >= 0:
                    self._epoll.register(self._resolver_fd, select.EPOLLIN)
                self._epoll.poll(0)  # the mount table is reported once at the start
                undo.pop_all()
        except OSError as error:
            raise _not_made(error) from None

    def close(self) -> None:
        """Close all descriptors. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._processes.close(in_child=self._pid != os.getpid())
            self._paths.close()
            self._whereabouts.close()
            self._epoll.close()

    def fileno(self) -> int:
        """Return a descriptor that is readable when :meth:`changed` may have references to report."""
        self._check()
        return self._epoll.fileno()

    def due(self) -> float | None:
        """Return the seconds until :meth:`changed` must be called even if the descriptor is not readable, or None."""
        self._check()
        if self._torn:
            return 0.0
        times = [self._paths.due(), self._processes.due()]
        if self._unfollowable:
            times.append(max(0.0, self._again - time.monotonic()))
        if self._ask_at is not None:
            times.append(max(0.0, self._ask_at - time.monotonic()))
        return earliest(*times)

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise belongs_to_parent("follower", self._pid)
        if self._closed:
            raise SessionClosed("this follower is closed")

    # --- following

    def follow(self, refs: Iterable[str]) -> None:
        """Follow these references, unless they are followed already.

        Raises :class:`InvalidValue` for an invalid reference, and :class:`NetlinkError` if descriptors run out (each
        process takes one, up to half of all). Then none of the new `refs` is followed.
        """
        self._check()
        check_several(refs)
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
        """Stop following these references. Unknown ones are ignored."""
        self._check()
        check_several(refs)
        for ref in refs:
            if ref in self._followed:
                self._detach(ref)
                del self._followed[ref]

    def gone(self, ref: str) -> str:
        """Return ``process 42 is gone`` if `ref` led to a process that has ended since it was followed; else "".

        Another process may have the same number by now; to follow that, unfollow the reference and follow it again.
        Changes of a symbolic link or of a resolver's answer are followed automatically. A microservice whose process
        has ended ``is not running``, even before its resolver has noticed.
        """
        reason = self._processes.gone(ref)
        if reason and _is_label(ref):
            return f"microservice {ref.removeprefix(MICROSERVICE)} is not running"
        return reason

    def remark(self, ref: str) -> str:
        """Return the resolver's remark about a microservice, or "". If it changes, `ref` is reported as changed."""
        if self._remark is None or not _is_label(ref):
            return ""
        return remark_of(self._remark, ref.removeprefix(MICROSERVICE))

    def unnoticed(self, ref: str) -> str:
        """Return why a change of where `ref` leads is not noticed, or ""."""
        if not self._paths.too_long(self._followed.get(ref, "")):
            return ""
        return f"its path has more than {MOST_NAMES} names, those of symbolic links included"

    def _attach(self, ref: str, reference: Reference | None) -> None:
        """Follow the file or the process of `reference` for `ref`."""
        if reference is None or reference.kind in ("home", "fd", "microservice"):
            return
        path = "/" + "/".join(name for name in reference.path.split("/") if name not in ("", "."))
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
                self._follow_process(ref, of_process)
            except OSError as error:
                raise not_opened(reference, error) from None

    def _follow_process(self, ref: str, path: str) -> None:
        self._processes.follow(ref, path)
        if not self._processes.gone(ref):
            self._whereabouts.follow(ref, path)

    def _unfollow_process(self, ref: str) -> None:
        self._processes.unfollow(ref)
        self._whereabouts.unfollow(ref)

    def _detach(self, ref: str) -> None:
        self._unfollowable.discard(ref)
        self._unfollow_process(ref)
        path, self._followed[ref] = self._followed[ref], ""
        refs = self._refs.get(path)
        if refs is not None:
            refs.discard(ref)
            if not refs:
                del self._refs[path]
                self._paths.unfollow(path)

    # --- changes

    def changed(self) -> set[str]:
        """Return the followed references that may lead elsewhere than at the last call. Does not wait.

        After a call that was interrupted (KeyboardInterrupt), the next one returns all references.
        """
        self._check()
        everything, self._torn = self._torn, True
        ready = {fd for fd, _ in self._epoll.poll(0)}
        changed = self._processes.ended(ready, everything)
        for ref in changed:
            self._whereabouts.unfollow(ref)
        for path in self._paths.changed(ready, everything):
            for ref in self._refs[path]:
                self._pass_on(ref, path)
                changed.add(ref)
        if everything or (self._resolver_fd in ready if self._ask_at is None else self._ask_at <= time.monotonic()):
            changed |= self._ask_again(everything)
        if self._unfollowable and self._again <= time.monotonic():
            changed |= self._try_again()
        if everything:
            changed = set(self._followed)
        self._torn = False
        return changed

    def moves_fileno(self) -> int:
        """Return a descriptor that is readable when it is time to call :meth:`moved`."""
        self._check()
        return self._whereabouts.fileno()

    def moved(self) -> set[str]:
        """Check the processes and paths that are due; return the references that lead to other namespaces or files."""
        self._check()
        return self._whereabouts.moved()

    def _pass_on(self, ref: str, path: str) -> None:
        """Follow the process to which symbolic links lead from `path` now."""
        self._unfollow_process(ref)
        of_process = self._paths.of_process(path)
        if of_process:
            try:
                self._follow_process(ref, of_process)
            except OSError:
                self._put_off(ref)

    def _ask(self, ref: str, label: str) -> None:
        """Follow the present answer for a microservice; keep the previous one if the resolver cannot answer."""
        if self._resolver is None:
            return
        try:
            answer = resolved(label, self._resolver)
        except NetnsNotFound:
            answer = None
        except VethError:
            return
        self._detach(ref)
        self._attach(ref, answer)

    def _ask_again(self, everything: bool) -> set[str]:
        labels = self._changed_labels() if isinstance(self._resolver, Resolver) else ()
        if labels is None or everything:
            changed = {ref for ref in self._followed if _is_label(ref)}
        else:
            changed = {ref for label in labels if (ref := MICROSERVICE + label) in self._followed}
        for ref in changed:
            self._ask_once_more(ref)
        return changed

    def _changed_labels(self) -> Iterable[str] | None:
        """Ask the resolver for changed labels; None for all. If it fails, its descriptor may remain readable.

        So the descriptor is ignored until it is asked again.
        """
        assert isinstance(self._resolver, Resolver)
        try:
            labels = changed_labels(self._resolver)
        except VethError as error:
            if self._ask_at is None:
                _log.warning("%s; all are asked for every %g s", error, AGAIN)
                self._heed_resolver(select.EPOLLONESHOT)
            self._ask_at = time.monotonic() + AGAIN
            return None
        if self._ask_at is not None:
            self._ask_at = None
            self._heed_resolver(select.EPOLLIN)
        return labels

    def _heed_resolver(self, events: int) -> None:
        """Select the events of the resolver's descriptor; EPOLLONESHOT for none after the next one."""
        with suppress(OSError):  # it is closed, or is another file by now
            self._epoll.modify(self._resolver_fd, events)

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
    if isinstance(error, VethError):
        reason = str(error)  # a limit of inotify
    elif error.errno == errno.EMFILE:
        reason = "no descriptor is left: raise ulimit -n"
    return NetlinkError(f"cannot follow namespaces: {reason}", errno=error.errno or 0)
