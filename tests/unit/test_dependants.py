"""Which dependant is attached to which link, after everything that can happen to links, namespaces and dependants."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethlib import Link
from vethlib.agent.registry.dependants import Attachment, Dependants

HOME, BLUE, RED = (4, 1), (4, 2), (4, 3)


def link(index: int, name: str = "va", *, up: bool = True, mtu: int = 1500) -> Link:
    return Link(index, name, "", "veth", "02:00:00:00:00:01", mtu, up, "up", (), None, None, "", 0, 1)


class Recorder:
    """A dependant that records its calls, and insists on receiving them in the right order."""

    def __init__(self, host_if_name: str = "va", netns: str = "blue") -> None:
        self.host_if_name = host_if_name
        self.netns = netns
        self.told: list[tuple[str, int]] = []
        self.on: Link | None = None
        self.refuses = False
        self.then: Callable[[], Any] = lambda: None

    def attached(self, link: Link) -> None:
        assert self.on is None
        assert link.name == self.host_if_name
        assert link.netns == self.netns
        self.told.append(("attached", link.index))
        if self.refuses:
            raise RuntimeError("refused")
        self.on = link
        self.then()

    def detached(self, link: Link) -> None:
        assert self.on == link
        self.on = None
        self.told.append(("detached", link.index))
        self.then()
        if self.refuses:
            raise RuntimeError("refused")


class World:
    """Where the references lead, and one dependant on va in blue."""

    def __init__(self) -> None:
        self.leads: dict[str, Any] = {"": HOME, "blue": BLUE, "pid:42": BLUE, "red": RED}
        self.asked: list[str] = []
        self.dependants = Dependants(self.place_of, self.refs_at)
        self.one = Recorder()

    def place_of(self, ref: str) -> Any:
        self.asked.append(ref)
        return self.leads.get(ref)

    def refs_at(self, place: object) -> list[str]:
        return [ref for ref in ("", "blue", "pid:42", "red") if self.leads[ref] == place]

    def add(self) -> Attachment:
        return self.dependants.add(self.one)

    def is_(self, link: Link, place: tuple[int, int] = BLUE) -> None:
        self.dependants.link_is(place, link)

    def gone(self, which: str | int, place: tuple[int, int] = BLUE) -> None:
        self.dependants.link_is_gone(place, which)

    def lead(self, ref: str, place: object) -> None:
        self.leads[ref] = place
        self.dependants.look_again([ref])


Step = Callable[[World], object]
add = World.add
A, D = "attached", "detached"


def up(world: World) -> None:
    world.is_(link(5))


def down(world: World) -> None:
    world.is_(link(5, up=False))


def gone(world: World) -> None:
    world.gone("va")


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        pytest.param([add], [], id="waits for its link"),
        pytest.param([add, up], [(A, 5)], id="added before its link"),
        pytest.param([up, add], [(A, 5)], id="added after its link"),
        pytest.param([down, add], [], id="is not attached to a link that is down"),
        pytest.param([add, down, up], [(A, 5)], id="waits until the link is up"),
        pytest.param([add, up, up, lambda w: w.is_(link(5, mtu=9000))], [(A, 5)], id="once, whatever else changes"),
        pytest.param([add, up, down], [(A, 5), (D, 5)], id="set down"),
        pytest.param([add, up, down, down, up], [(A, 5), (D, 5), (A, 5)], id="set down and up"),
        pytest.param([add, up, gone, gone], [(A, 5), (D, 5)], id="deleted"),
        pytest.param([add, up, lambda w: w.gone(5)], [(A, 5), (D, 5)], id="deleted by its ifindex"),
        pytest.param([add, up, lambda w: w.gone(6)], [(A, 5)], id="another ifindex is deleted"),
        pytest.param([add, up, lambda w: w.gone("va", RED)], [(A, 5)], id="deleted elsewhere"),
        pytest.param([add, up, gone, lambda w: w.is_(link(9))], [(A, 5), (D, 5), (A, 9)], id="comes back"),
        pytest.param(
            [add, up, lambda w: w.is_(link(9))], [(A, 5), (D, 5), (A, 9)], id="replaced before its end was told"
        ),
        pytest.param(
            [add, up, lambda w: w.is_(link(9)), lambda w: w.gone(5)],
            [(A, 5), (D, 5), (A, 9)],
            id="the end of the replaced one comes late",
        ),
        pytest.param([add, up, lambda w: w.is_(link(5, "vb"))], [(A, 5), (D, 5)], id="renamed away"),
        pytest.param([add, lambda w: w.is_(link(5, "vb")), up], [(A, 5)], id="renamed to its name"),
        pytest.param(
            [add, up, lambda w: w.is_(link(9, "vb")), lambda w: w.is_(link(5, "vc")), lambda w: w.is_(link(9))],
            [(A, 5), (D, 5), (A, 9)],
            id="another link takes the name",
        ),
        pytest.param([add, lambda w: w.is_(link(5), RED)], [], id="the name is in another namespace"),
        pytest.param([add, up, lambda w: w.lead("blue", None)], [(A, 5), (D, 5)], id="its reference leads nowhere"),
        pytest.param(
            [lambda w: w.lead("blue", None), add, up, lambda w: w.lead("blue", BLUE)],
            [(A, 5)],
            id="its reference leads somewhere at last",
        ),
        pytest.param(
            [add, up, lambda w: w.is_(link(5), RED), lambda w: w.lead("blue", RED)],
            [(A, 5), (D, 5), (A, 5)],
            id="its reference leads elsewhere, to a link of the same ifindex",
        ),
        pytest.param([add, up, lambda w: w.dependants.place_is_gone(BLUE)], [(A, 5), (D, 5)], id="its namespace ends"),
        pytest.param([add, up, lambda w: w.dependants.place_is_gone(RED)], [(A, 5)], id="another namespace ends"),
        pytest.param([add, up, lambda w: w.dependants.close()], [(A, 5), (D, 5)], id="closed"),
        pytest.param([add, lambda w: w.dependants.close(), up], [], id="closed before"),
    ],
)
def test_a_dependant_is_attached_exactly_while_its_link_is_there_and_up(
    steps: list[Step], told: list[tuple[str, int]]
) -> None:
    world = World()
    for step in steps:
        step(world)
    assert world.one.told == told


def test_a_handle_says_what_it_is_attached_to_and_ends_it() -> None:
    world = World()
    handle = world.add()
    assert handle.link is None
    up(world)
    assert handle.link == world.one.on
    handle.remove()
    assert handle.link is None
    handle.remove()
    gone(world)
    up(world)
    assert world.one.told == [(A, 5), (D, 5)]


def test_every_spelling_of_a_namespace_leads_to_the_link() -> None:
    world = World()
    several = [Recorder("va", ref) for ref in ("blue", "pid:42", "red", "")]
    for one in several:
        world.dependants.add(one)
    up(world)
    assert [one.on is not None for one in several] == [True, True, False, False]


def test_the_references_are_those_of_the_dependants_there_are() -> None:
    world = World()
    handles = [world.dependants.add(Recorder(name, ref)) for name, ref in [("va", "blue"), ("vb", "blue"), ("va", "")]]
    assert world.dependants.refs == {"blue", ""}
    handles[0].remove()
    assert world.dependants.refs == {"blue", ""}
    handles[1].remove()
    assert world.dependants.refs == {""}


def test_only_the_dependants_that_wait_where_a_link_is_are_looked_at() -> None:
    """Thousands of containers have a link with the same name, each with its dependant."""
    world = World()
    elsewhere = [f"c{number}" for number in range(100)]
    world.leads |= {ref: (4, 10 + number) for number, ref in enumerate(elsewhere)}
    for ref in elsewhere:
        world.dependants.add(Recorder("va", ref))
        world.is_(link(5), world.leads[ref])
    world.add()
    world.asked.clear()
    up(world)
    world.dependants.look_again(["blue"])
    world.dependants.check(BLUE)
    gone(world)
    up(world)
    world.dependants.place_is_gone(BLUE)
    assert world.one.told == [(A, 5), (D, 5), (A, 5), (D, 5)]
    assert set(world.asked) == {"blue"}


def test_a_refusal_is_logged_and_tried_again_when_the_link_changes_or_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.one.refuses = True
    handle = world.add()
    up(world)
    up(world)  # is the same
    assert (world.one.told, handle.link) == ([(A, 5)], None)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("vethlib.agent", logging.ERROR)
    assert "'va' in netns:blue" in record.getMessage()
    assert record.exc_info is not None
    world.is_(link(5, mtu=1400))
    assert len(world.one.told) == 2
    gone(world)
    assert len(world.one.told) == 2, "what was not attached is not detached"
    world.is_(link(5, mtu=1400))
    assert len(world.one.told) == 3
    world.one.refuses = False
    world.is_(link(5, mtu=1300))
    assert world.one.on == handle.link
    assert handle.link is not None


def test_an_error_while_it_is_detached_is_logged_and_it_counts_as_detached(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    handle = world.add()
    other = Recorder()
    world.dependants.add(other)
    up(world)
    world.one.refuses = True
    gone(world)
    assert len(caplog.records) == 1
    assert (handle.link, other.told) == (None, [(A, 5), (D, 5)])


def test_a_dependant_that_refuses_does_not_keep_others_from_the_link() -> None:
    world = World()
    world.one.refuses = True
    world.add()
    other = Recorder()
    world.dependants.add(other)
    up(world)
    assert other.told == [(A, 5)]


class Doubtful(Recorder):
    """A dependant that raises an error when asked whether it is still attached."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def is_attached(self) -> bool:
        raise self.error


class Broken(Doubtful):
    """A dependant whose method cannot even be looked up."""

    @property
    def is_attached(self) -> Any:
        raise self.error


@pytest.mark.parametrize("kind", [Doubtful, Broken])
@pytest.mark.parametrize("error", [ValueError("bug"), OSError(9, "Bad file descriptor"), RecursionError()])
def test_a_dependant_that_cannot_be_asked_is_attached_again_and_keeps_no_other_from_being_asked(
    caplog: pytest.LogCaptureFixture, kind: type[Doubtful], error: Exception
) -> None:
    world = World()
    doubtful, other = kind(error), Recorder()
    other.is_attached = lambda: False  # type: ignore[attr-defined]
    handles = [world.dependants.add(one) for one in (doubtful, other)]
    up(world)
    world.dependants.check(BLUE)
    assert doubtful.told == other.told == [(A, 5), (D, 5), (A, 5)]
    assert [handle.link for handle in handles] == [doubtful.on, other.on]
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)


def test_a_dependant_may_remove_itself_while_it_is_attached_or_detached() -> None:
    world = World()
    handle = world.add()
    world.one.then = handle.remove
    up(world)
    assert world.one.told == [(A, 5), (D, 5)]
    assert world.dependants.refs == set()

    world = World()
    handle = world.add()
    up(world)
    world.one.then = handle.remove
    world.is_(link(9))
    assert world.one.told == [(A, 5), (D, 5)]


def test_a_dependant_may_add_and_remove_others_while_it_is_attached() -> None:
    world = World()
    first, late = Recorder(), Recorder()
    world.dependants.add(first)
    handle = world.dependants.add(world.one)

    def exchange() -> None:
        handle.remove()
        world.dependants.add(late)

    first.then = exchange
    up(world)
    assert (first.told, world.one.told, late.told) == ([(A, 5)], [], [(A, 5)])


def test_an_interrupt_while_attaching_leaves_it_to_be_detached() -> None:
    world = World()
    world.add()

    def interrupt() -> None:
        raise KeyboardInterrupt

    world.one.then = interrupt
    with pytest.raises(KeyboardInterrupt):
        up(world)
    world.one.then = lambda: None
    gone(world)
    assert world.one.told == [(A, 5), (D, 5)]


def test_an_interrupt_while_it_is_added_leaves_it_detached_and_unknown() -> None:
    world = World()
    up(world)

    def interrupt() -> None:
        world.one.then = lambda: None
        raise KeyboardInterrupt

    world.one.then = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.add()
    assert world.one.told == [(A, 5), (D, 5)]
    assert world.dependants.refs == set()


places = st.sampled_from([BLUE, RED])
refs = st.sampled_from(["blue", "red"])
names = st.sampled_from(["va", "vb"])
steps = st.one_of(
    st.tuples(st.just("is"), places, st.integers(1, 3), names, st.booleans()),
    st.tuples(st.just("gone"), places, st.integers(1, 3) | names),
    st.tuples(st.just("over"), places),
    st.tuples(st.just("lead"), refs, places | st.none()),
    st.tuples(st.just("add"), names, refs),
    st.tuples(st.just("remove"), st.integers(0, 5)),
)


@given(st.lists(steps, max_size=40))
def test_whatever_happens_each_is_attached_to_the_link_that_is_up_where_its_reference_leads(
    happenings: list[tuple[Any, ...]],
) -> None:
    """Against the plainest model: the links that are up, in a dict."""
    world = World()
    plain: dict[tuple[Any, str], Link] = {}
    added: list[tuple[Recorder, Attachment]] = []
    for what, *how in happenings:
        if what == "is":
            place, index, name, is_up = how
            now = link(index, name, up=is_up)
            plain = {at: one for at, one in plain.items() if (at[0], one.index) != (place, index)}
            if is_up:
                plain[place, name] = now
            world.is_(now, place)
        elif what == "gone":
            place, which = how
            plain = {at: one for at, one in plain.items() if at[0] != place or which not in (one.index, one.name)}
            world.gone(which, place)
        elif what == "over":
            plain = {at: one for at, one in plain.items() if at[0] != how[0]}
            world.dependants.place_is_gone(how[0])
        elif what == "lead":
            world.lead(*how)
        elif what == "add":
            one = Recorder(*how)
            added.append((one, world.dependants.add(one)))
        elif added:
            removed, handle = added.pop(how[0] % len(added))
            handle.remove()
            assert removed.on is None
        for one, handle in added:
            wanted = plain.get((world.leads[one.netns], one.host_if_name))
            assert (one.on and one.on.index) == (wanted and wanted.index)
            assert handle.link == one.on
