"""This suite beside what a host may have: a running agent, its state, names in /run/netns, and an operator's settings.

The host is a pair of namespaces, mount and network, around a pytest of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Those that read or write what belongs to a host: /run/vethlib, /run/netns, the environment, the mount table.
TESTS = [
    "tests/live/test_completion.py::test_names_that_are_there_are_offered",
    "tests/live/test_configurator_named_netns.py::test_run_netns_absent_at_the_start_is_waited_for",
    "tests/live/test_follow_files.py::test_the_directory_may_come_later",
    "tests/live/test_follow_files.py::test_the_directory_may_go_and_come_again",
    "tests/live/test_follow_files.py::test_a_file_system_mounted_over_the_directory_hides_and_uncovers_names",
    "tests/live/test_ns_named.py::test_the_directory_is_one_shared_mount_however_often_one_creates",
    "tests/live/test_vethctl_looks.py::test_the_doctor_finds_nothing_missing_here",
    "tests/live/test_vethctl_agent.py::test_put_does_not_make_the_directory_anew_that_an_agent_waits_for",
    "tests/unit/test_complete.py",
    "tests/unit/test_cli_doctor_checks.py",
]

HOST = """
set -eu
mount --make-rprivate /
mount -t tmpfs none /run
ip link set lo up
ip link add theirs0 type veth peer name theirs1
ip netns add theirs
mkdir -p "$1/store"
echo '{"name": "veth2", "veth": {"peer_if_name": "none"}}' > "$1/store/a.json"
"$PYTHON" -m vethlib agent --store "dir:$1/store" --label vpp1 --docker off 2> "$1/log" &
agent=$!
trap 'kill $agent; wait $agent' EXIT
for i in $(seq 600); do [ -e /run/vethlib/vpp1/status/veth2.json ] && break; sleep 0.05; done
look() { find /run -printf '%p %m %s %T@\\n' | sort; ip -o link; }
look > "$1/before"
export VETHLIB_LABEL=theirs VETHLIB_STORE=etcd://127.0.0.1:1 VETHLIB_JSON=1 MICROSERVICE_LABEL=theirs NO_COLOR=1
shift
"$PYTHON" -m pytest -q -p no:cacheprovider "--basetemp=$BASE" "$@"
look > "$BASE/../after"
kill -0 $agent
"""


def test_what_a_host_has_is_neither_seen_nor_changed_by_these_tests(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "BASE": str(tmp_path / "base")}
    command = ["unshare", "--mount", "--net", "bash", "-c", HOST, "host", str(tmp_path), *TESTS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "log").read_text()
    before = (tmp_path / "before").read_text()
    assert "/run/vethlib/vpp1/status/veth2.json" in before
    assert (tmp_path / "after").read_text() == before
