"""The checked-in protobuf code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = Path("vethlib/agent/config/northbound.proto")


def test_the_generated_code_is_what_the_proto_file_gives(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    plugin = Path(sys.executable).parent / "protoc-gen-mypy"
    options = [f"-I{ROOT}", f"--python_out={tmp_path}"]
    if plugin.exists():
        options += [f"--mypy_out={tmp_path}", f"--plugin=protoc-gen-mypy={plugin}"]
    assert protoc.main(["protoc", *options, str(PROTO)]) == 0
    for name in ["northbound_pb2.py", "northbound_pb2.pyi"][: 1 + plugin.exists()]:
        made = (tmp_path / PROTO.parent / name).read_text()
        assert _without_version(made) == _without_version((ROOT / PROTO.parent / name).read_text())


def _without_version(code: str) -> str:
    """Generated code without the version of its generator: ours is an old one, for the sake of old runtimes."""
    lines = code.splitlines()
    return "\n".join(line for line in lines if "Protobuf Python Version" not in line and not line[4:-1].isdigit())
