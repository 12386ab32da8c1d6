"""Which container belongs to which label, given the engine's description of each; and which engines are usable."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusing import raises
from vethlib import InvalidValue
from vethlib.follow.docker.containers import Container, Containers, container
from vethlib.follow.docker.engine import socket_path

ID = "0123456789abcdef" * 4


def described(
    *env: str, labels: dict[str, str] | None = None, name: str = "/web1", started: str = "", **state: Any
) -> dict[str, Any]:
    """Return the engine's description of a container that runs as process 42."""
    return {
        "Id": ID,
        "Name": name,
        "State": {"Running": True, "Pid": 42, "StartedAt": started or "2024-05-04T03:02:01Z"} | state,
        "Config": {"Env": list(env) or None, "Labels": labels},
    }


def label_of(found: Container | None) -> str:
    return "" if found is None else found.label


def one(id_: str, label: str = "vnf1", started: int = 0, pid: int = 1) -> Container:
    return Container(id_, f"name-{id_}", label, pid, started)


# --- one container


def test_a_running_container_is_read_whole() -> None:
    assert container(described("A=b", "MICROSERVICE_LABEL=vnf1")) == Container(
        ID, "web1", "vnf1", 42, 1714791721 * 10**9
    )


@pytest.mark.parametrize(
    ("env", "labels", "expected"),
    [
        (["MICROSERVICE_LABEL=vnf1"], {}, "vnf1"),
        (["MICROSERVICE_LABEL=a=b/c d"], None, "a=b/c d"),
        ([], {"microservice_label": "vnf2"}, "vnf2"),
        (["MICROSERVICE_LABEL=vnf1"], {"microservice_label": "vnf2"}, "vnf1"),
        (["MICROSERVICE_LABEL="], {"microservice_label": "vnf2"}, "vnf2"),
        (["MICROSERVICE_LABEL"], {"microservice_label": "vnf2"}, "vnf2"),
        (["MICROSERVICE_LABEL=first", "MICROSERVICE_LABEL=second"], {}, "first"),
        (["MICROSERVICE_LABEL_2=x", "XMICROSERVICE_LABEL=x", "microservice_label=x"], {"MICROSERVICE_LABEL": "x"}, ""),
        ([], {"microservice_label": ""}, ""),
        (["MICROSERVICE_LABEL=" + "x" * 255], {}, "x" * 255),
        (["MICROSERVICE_LABEL=" + "x" * 256], {}, ""),
        (["MICROSERVICE_LABEL=" + "é" * 128], {}, ""),
        ([], {"microservice_label": "\ud800" * 100_000}, ""),
        ([], None, ""),
    ],
)
def test_the_environment_names_the_label_and_a_container_label_where_it_does_not(
    env: list[str], labels: dict[str, str] | None, expected: str
) -> None:
    assert label_of(container(described(*env, labels=labels))) == expected


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        ({"Status": "paused", "Paused": True}, True),
        ({"Status": "paused", "Paused": True, "Running": False}, True),  # as podman describes it
        ({"Status": "running", "Running": False}, True),  # podman's, about to stop
        ({"Status": "stopping", "Running": False}, True),
        ({"Status": "initialized", "Running": False}, False),
        ({"Status": "created", "Running": False}, False),  # podman's, initialized: it has a process, but not its own
        ({"Status": "exited", "Running": False, "Pid": 0}, False),
        ({"Status": "created", "Running": False, "Pid": 0, "StartedAt": "0001-01-01T00:00:00Z"}, False),
        ({"Status": "restarting", "Restarting": True, "Running": True, "Pid": 0}, False),
    ],
)
def test_a_container_counts_while_it_has_a_process(state: dict[str, Any], counts: bool) -> None:
    assert (container(described("MICROSERVICE_LABEL=vnf1", **state)) is not None) == counts


@pytest.mark.parametrize("pid", ["42", -1, True, 4.2, [1]])
def test_a_process_id_that_is_none_is_an_error(pid: Any) -> None:
    with raises(ValueError):
        container(described("MICROSERVICE_LABEL=vnf1", Pid=pid))


def test_a_container_without_a_name_is_called_by_its_id() -> None:
    found = container(described("MICROSERVICE_LABEL=vnf1", name=""))
    assert found is not None
    assert found.name == ID[:12]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2024-05-04T03:02:01Z", "2024-05-04T03:02:01.000000001Z"),
        ("2024-05-04T03:02:01.12Z", "2024-05-04T03:02:01.123Z"),
        ("2024-05-04T03:02:01.9Z", "2024-05-04T03:02:02Z"),
        ("2024-05-04T05:02:01.5+02:00", "2024-05-04T03:02:01.6Z"),
    ],
)
def test_times_are_compared_as_times(earlier: str, later: str) -> None:
    first = container(described("MICROSERVICE_LABEL=x", started=earlier))
    second = container(described("MICROSERVICE_LABEL=x", started=later))
    assert first is not None
    assert second is not None
    assert first.started < second.started


@pytest.mark.parametrize("strange", ["", "yesterday", "2024-05-04", "2024-05-04T03:02:01"])
def test_a_time_that_is_none_is_an_error_and_no_age(strange: str) -> None:
    with raises(ValueError):
        container(described("MICROSERVICE_LABEL=x") | {"State": {"Running": True, "Pid": 1, "StartedAt": strange}})


# --- many


def test_of_two_with_one_label_the_longer_running_one_answers_and_the_other_takes_over() -> None:
    containers = Containers()
    assert containers.put("b", one("b", started=2)) == {"vnf1"}
    assert containers.remark("vnf1") == ""
    assert containers.put("a", one("a", started=1)) == {"vnf1"}
    assert containers.answering("vnf1") == one("a", started=1)
    assert containers.remark("vnf1") == (
        "2 containers are microservice vnf1: name-a is used, which has been running longest, not name-b"
    )
    containers.put("c", one("c", started=3))
    assert containers.remark("vnf1") == (
        "3 containers are microservice vnf1: name-a is used, which has been running longest, not name-b, name-c"
    )
    assert containers.put("a", None) == {"vnf1"}
    assert containers.answering("vnf1") == one("b", started=2)
    containers.put("c", None)
    assert containers.remark("vnf1") == ""
    containers.put("b", None)
    assert containers.answering("vnf1") is None
    assert containers.labels() == set()


def test_a_few_of_very_many_with_one_label_are_named_and_the_others_counted() -> None:
    containers = Containers()
    for number in range(1000):
        containers.put(f"{number:04}", one(f"{number:04}", started=number))
    remark = containers.remark("vnf1")
    assert "name-0001" in remark
    assert "991 more" in remark
    assert len(remark) < 300


def test_one_that_is_restarted_does_not_take_its_label_back() -> None:
    containers = Containers()
    containers.put("a", one("a", started=1))
    containers.put("b", one("b", started=2))
    containers.put("a", one("a", started=3, pid=7))
    assert containers.answering("vnf1") == one("b", started=2)


def test_what_has_not_changed_concerns_nobody() -> None:
    containers = Containers()
    containers.put("a", one("a"))
    assert containers.put("a", one("a")) == set()
    assert containers.put("b", None) == set()
    assert containers.replace([one("a")]) == set()


def test_another_process_label_or_name_concerns_whoever_had_it_and_whoever_has_it() -> None:
    containers = Containers()
    containers.put("a", one("a"))
    assert containers.put("a", one("a", pid=2)) == {"vnf1"}
    assert containers.put("a", one("a", "vnf2", pid=2)) == {"vnf1", "vnf2"}
    assert containers.replace([one("b", "vnf3")]) == {"vnf2", "vnf3"}
    assert containers.labels() == {"vnf3"}


_containers = st.builds(
    one, st.sampled_from("abcd"), st.sampled_from(["vnf1", "vnf2"]), st.integers(0, 2), st.integers(1, 3)
)


@given(st.lists(st.one_of(st.tuples(st.sampled_from("abcd")), _containers)))
def test_who_answers_depends_on_what_there_is_and_not_on_how_it_came_to_be(
    steps: list[tuple[str] | Container],
) -> None:
    containers, there = Containers(), dict[str, Container]()
    for step in steps:
        before = {label: (containers.answering(label), containers.remark(label)) for label in ("vnf1", "vnf2")}
        if isinstance(step, Container):
            there[step.id] = step
            affected = containers.put(step.id, step)
        else:
            there.pop(step[0], None)
            affected = containers.put(step[0], None)
        afresh = Containers()
        afresh.replace(there.values())
        for label in ("vnf1", "vnf2"):
            now = containers.answering(label), containers.remark(label)
            assert now == (afresh.answering(label), afresh.remark(label))
            assert now == before[label] or label in affected


# --- which engine


@pytest.mark.parametrize("url", ["unix:///var/run/docker.sock", "/var/run/docker.sock"])
def test_a_socket_of_this_host_is_an_engine_s(url: str) -> None:
    assert socket_path(url) == "/var/run/docker.sock"


@pytest.mark.parametrize(
    "url", ["tcp://10.0.0.1:2375", "ssh://root@host", "http://host:2375", "https://host", "tcp:host", "npipe:////./x"]
)
def test_an_engine_elsewhere_is_refused_because_its_process_ids_mean_nothing_here(url: str) -> None:
    with raises(InvalidValue, field="--docker", value=url) as caught:
        socket_path(url, "--docker")
    assert "unix:///var/run/docker.sock" in caught.value.hint


@pytest.mark.parametrize("url", ["", "docker.sock", "unix://docker.sock", "unix:"])
def test_what_is_no_absolute_path_is_no_socket(url: str) -> None:
    with raises(InvalidValue, value=url):
        socket_path(url)


def test_a_change_among_many_of_one_label_compares_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    containers = Containers()
    many = [one(f"{number:05}", started=number * 7 % 1000) for number in range(1000)]
    containers.replace(many)
    looks = 0

    def counted(self: Container, name: str) -> Any:
        nonlocal looks
        looks += 1
        return object.__getattribute__(self, name)

    monkeypatch.setattr(Container, "__getattribute__", counted)
    for number in (0, 500, 999):
        looks = 0
        containers.put(many[number].id, None)
        containers.put(many[number].id, many[number])
        assert looks < 200
    monkeypatch.undo()
    assert containers.answering("vnf1") == min(many, key=lambda each: (each.started, each.id))
