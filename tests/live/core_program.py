"""A program that exercises the core with any Python: without the checkout and without other packages."""

from __future__ import annotations

import gc
import sys
import threading

import vethlib
from vethlib import End, IfIndexCache, LinkExists, LinkNotFound, Netns, Session, Veth, ns


def whole() -> None:
    """Create, change, move and delete a pair, and follow it in a cache."""
    assert "site-packages" in vethlib.__file__, vethlib.__file__
    print("installed")
    with Session() as session, Netns.create("n1"), Netns.create("n2"), IfIndexCache(session) as cache:
        cache.watch_all(["", "n1", "n2"])
        pair = session.create(
            Veth(End("x", addresses=["10.0.0.1/24", "2001:db8::1/64"]), End("y", netns="n1")), wait=60
        )
        assert pair.a.operstate == "up"
        try:
            session.create(Veth(End("x"), End("z")))
        except LinkExists:
            print("created")
        link = session.set("y", "n1", mtu=1400, new_name="w", addresses=["10.0.0.2/24"])
        assert (link.name, link.mtu, [str(each) for each in link.ifaddrs if not each.by_kernel]) == (
            "w",
            1400,
            ["10.0.0.2/24"],
        )
        print("changed")
        moved = session.move(link, to="n2")
        assert session.index("w", "n2") == moved.index
        print("moved")
        cache.catch_up()
        assert cache.index("w", "n2") == moved.index
        print("cached")
        session.delete_many([("x", ""), ("w", "n2")])
        try:
            session.lookup("x")
        except LinkNotFound:
            print("deleted")


def threads() -> None:
    """Use one session from eight threads."""
    if hasattr(sys, "_is_gil_enabled"):
        before = sys._is_gil_enabled()
    errors: list[BaseException] = []
    with Session() as session:
        names = [f"t{number}" for number in range(8)]
        for name in names:
            Netns.create(name).close()

        def work(name: str) -> None:
            try:
                for number in range(5):
                    pair = session.create(Veth(End(f"{name}-{number}"), End(f"end{number}", netns=name)))
                    assert session.lookup(f"end{number}", name).index == pair.b.index
                    assert session.set(f"{name}-{number}", mtu=1300 + number).mtu == 1300 + number
            except BaseException as error:
                errors.append(error)

        running = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        assert not errors, errors
        made = {f"{name}-{number}" for name in names for number in range(5)}
        assert {link.name for link in session.links()} == {"lo", *made}
        session.delete_many((name, "") for name in made)
        assert {link.name for link in session.links()} == {"lo"}
    if hasattr(sys, "_is_gil_enabled"):
        assert sys._is_gil_enabled() == before
    print("shared")


if __name__ == "__main__":
    ns.isolate()
    threads() if sys.argv[1:] == ["threads"] else whole()
    gc.collect()
