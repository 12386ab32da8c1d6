"""Commands of hooks in an agent with many descriptors, whose limit was raised: nothing else gets fewer meanwhile."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from vethlib.agent.hooks.command import run
from vethlib.agent.process import descriptors
from vethlib.agent.process.descriptors import as_given, raise_limit

MANY = 2000


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """This process was given 1024 descriptors, has raised that, and has 2000 open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 2 * MANY:
        pytest.fail(f"needs a hard limit of {2 * MANY} descriptors")
    monkeypatch.setattr(descriptors, "_given", None)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    opened = []
    try:
        raise_limit()
        for _ in range(MANY):
            opened.append(os.open("/dev/null", os.O_RDONLY))
        yield opened
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def limits_of_a_command(path: Path) -> list[str]:
    command = ["/bin/sh", "-c", f"sleep 0.2; ulimit -Sn >{path}"]  # the limit may be set after the command has started
    assert asyncio.run(run(command, b"", {}, 60)) == ""
    return path.read_text().split()


def test_while_a_command_is_started_others_may_open_files_even_if_low_numbers_are_free(
    many: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fd in many[:8]:  # the loop of asyncio and the command itself need six
        os.close(fd)
    del many[:8]
    spawn, opened = os.posix_spawn, []

    def spawned(*arguments: object, **options: object) -> int:
        for _ in range(5):  # as other threads do at that moment
            many.append(os.open("/dev/null", os.O_RDONLY))
            opened.append(many[-1])
        return spawn(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "posix_spawn", spawned)
    assert limits_of_a_command(tmp_path / "limits") == ["1024"]
    assert len(opened) == 5


def test_a_command_is_started_though_a_library_has_left_it_a_descriptor_beyond_the_old_limit(
    many: list[int], tmp_path: Path
) -> None:
    for fd in many[:-1]:
        os.close(fd)
    del many[:-1]
    os.set_inheritable(many[0], True)
    assert many[0] > 1024
    assert limits_of_a_command(tmp_path / "limits") == ["1024"]


def test_with_few_descriptors_a_command_has_the_old_limit_from_the_start(many: list[int], tmp_path: Path) -> None:
    for fd in many:
        os.close(fd)
    many.clear()
    raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    with as_given(len(os.listdir("/proc/self/fd")), highest=2):
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1024, raised[1])
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised
