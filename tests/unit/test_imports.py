"""Importing a part of the library does not import protobuf, the Docker SDK or gRPC unless that part needs them."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("docker", "google", "grpc", "prometheus_client")


def heavy_modules(script: str) -> set[str]:
    """Run a script in a new interpreter; return the heavy packages that it has imported."""
    script += "\nimport sys\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return {module.partition(".")[0] for module in output.split()} & set(HEAVY)


@pytest.mark.parametrize(
    "script",
    [
        "import vethlib",
        "import vethlib.monitor",
        "import vethlib.agent",
        "from vethlib import Session\n"
        "from vethlib.agent import DockerResolver\n"
        "with Session(resolver=DockerResolver()): pass",
    ],
    ids=["vethlib", "monitor", "agent", "session-with-docker-resolver"],
)
def test_nothing_heavy_is_imported(script: str) -> None:
    assert heavy_modules(script) == set()


def test_the_model_of_the_agent_imports_protobuf() -> None:
    assert heavy_modules("from vethlib.agent import read") == {"google"}


def test_a_plain_import_leaves_out_what_only_some_need() -> None:
    """Each of these takes a millisecond or more, in every program that imports vethlib."""
    script = "import sys; before = {*sys.modules}; import vethlib; print(*{*sys.modules} - before)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    needless = {"asyncio", "dataclasses", "inspect", "random", "subprocess", "vethlib.session.write.creating.create"}
    assert {"vethlib.session.session"} <= {*output.split()}
    assert needless & {*output.split()} == set()
