"""Which fixtures of the plugin a source uses, and which of these names it defines itself."""

from __future__ import annotations

import warnings

import pytest

from vethlib.pytest_netns.isolation.mentions import MARKER, NOTHING, Mentions, look


def mentions(source: str) -> Mentions:
    return look(source.encode(), lambda name: name.startswith("test"), lambda name: name.startswith("Test"))


def asked(source: str) -> tuple[str, ...]:
    return mentions(source).asked


def given(source: str) -> frozenset[str]:
    return mentions(source).given


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def test_it(tmp_path, veth): pass", "veth"),
        ("async def test_it(*, class_veth): pass", "class_veth"),
        ("class TestIt:\n    def test_it(self, module_topology): pass", "module_topology"),
        ("def test_it(\n    x: dict[str, int],  # a ): in a comment\n    netns: Node,\n) -> None: pass", "netns"),
        ("@pytest.fixture\ndef net(topology): pass", "topology"),
        ("@fixture(scope='module')\ndef net(module_topology): pass", "module_topology"),
        ("@pytest_asyncio.fixture\nasync def net(veth): pass", "veth"),
        ("pytestmark = pytest.mark.usefixtures('tmp_path', 'netns')", "netns"),
        ("@pytest.mark.usefixtures('veth')\nclass TestIt: pass", "veth"),
        ("def test_it(request): request.getfixturevalue('session_veth')", "session_veth"),
        ("@pytest.mark.netns\ndef test_it(): pass  # no netns", MARKER),
        ("from pytest import mark\npytestmark = [mark.netns(leaks='off')]", MARKER),
        ("class Checks:\n    def test_it(self, veth): pass\nclass TestIt(Checks): pass", "veth"),
        ("class Case(TestCase):\n    @pytest.fixture(autouse=True)\n    def _net(self, topology): pass", "topology"),
        ("@patch('mine.get')\ndef test_it(get, topology): pass", "topology"),
        ("@patch('mine.get', 1)\ndef test_it(topology): pass", "topology"),
        ("@mock.patch.object(mine, 'get', new=1)\ndef test_it(topology): pass", "topology"),
        ("@patch.dict('os.environ')\ndef test_it(topology): pass", "topology"),
        ("@given(st.text())\ndef test_it(topology, text): pass", "topology"),
        ("@given(text=st.text())\ndef test_it(topology, text): pass", "topology"),
        ("@pytest.mark.parametrize(argnames='x', argvalues=[])\ndef test_it(x, veth): pass", "veth"),
    ],
)
def test_every_way_of_asking_is_seen(source: str, name: str) -> None:
    assert asked(source) == (name,)


@pytest.mark.parametrize(
    "source",
    [
        "def add(netns, name): pass",
        "class Fake:\n    def enter(self, veth): pass",
        "def test_it(topology=None, *, veth=1): pass",
        "def test_it(): topology = 1; add(netns='x', veth=veth)",
        "PROJECT = '''\ndef test_it(veth): pass\n'''",
        "# def test_it(veth): pass",
        "def test_it(topology",
        "def test_it(veth\0): pass",
        "def test_it(netns_, my_veth, topology2): pass",
        "@patch('mine.get')\ndef test_it(topology): pass",
        "@patch('mine.get')\n@mock.patch.object(mine, 'set')\ndef test_it(topology, veth): pass",
        "@patch('mine.get')\nclass TestIt:\n    @patch('mine.set')\n    def test_it(self, topology, veth): pass",
        "@patch('mine.topology')\ndef test_it(topology): pass",
        "@patch.multiple(mine, topology=DEFAULT)\ndef test_it(topology): pass",
        "@given(topology=st.text())\ndef test_it(topology): pass",
        "@given(st.integers())\ndef test_it(topology): pass",
        "@given(st.integers(), st.integers())\ndef test_it(topology, *, veth=0): pass",
        "@pytest.mark.parametrize(cases.NAMES, cases.ALL)\ndef test_it(topology): pass",
        "@pytest.mark.parametrize(argnames=cases.NAMES, argvalues=[])\ndef test_it(topology): pass",
        "@pytest.mark.parametrize(cases.NAMES, [])\nclass TestIt:\n    def test_it(self, topology): pass",
        "class Case(unittest.TestCase):\n    def test_it(self, topology): pass",
        "class TestIt(IsolatedAsyncioTestCase):\n    async def test_it(self, topology): pass",
        "class Helper:\n    def test_link(self, veth): pass",
    ],
)
def test_what_is_only_called_so_is_not_asked_for(source: str) -> None:
    assert asked(source) == ()


@pytest.mark.parametrize(
    "source",
    [
        "@pytest.fixture\ndef topology(): pass\ndef test_it(topology): pass",
        "@pytest.fixture(name='topology')\ndef _topology(): pass\ndef test_it(topology): pass",
        "from mine import topology\ndef test_it(topology): pass",
        "from mine import net as topology\ndef test_it(topology): pass",
        "topology = make_fixture()\ndef test_it(topology): pass",
        "@pytest.mark.parametrize('x, topology', [])\ndef test_it(x, topology): pass",
        "@pytest.mark.parametrize(['x', 'topology'], [])\ndef test_it(x, topology): pass",
        "pytestmark = pytest.mark.parametrize('topology', [])\ndef test_it(topology): pass",
        "def pytest_generate_tests(metafunc): metafunc.parametrize('topology', [])\ndef test_it(topology): pass",
        "@pytest.mark.parametrize(argnames='topology', argvalues=[1])\ndef test_it(topology): pass",
        "@pytest.mark.parametrize(argnames=['x', 'topology'], argvalues=[])\ndef test_it(topology): pass",
        "NAMES = 'x, topology'\npytestmark = pytest.mark.parametrize(NAMES, [])\ndef test_it(topology): pass",
        "NAMES = ['topology']\ndef pytest_generate_tests(metafunc): metafunc.parametrize(NAMES[0], [])",
        "try:\n    from mine import topology\nexcept ImportError:\n    pass\ndef test_it(topology): pass",
        "if sys.platform == 'linux':\n    topology = make_fixture()\ndef test_it(topology): pass",
        "topology: Fixture = make_fixture()\ndef test_it(topology): pass",
        "@fixture_factory(scope='module')\ndef topology(): pass\ndef test_it(topology): pass",
    ],
)
def test_a_name_that_the_source_gives_a_meaning_is_its_own(source: str) -> None:
    assert asked(source) == ()
    assert given(source) == {"topology"}


def test_other_names_are_still_asked_for() -> None:
    source = "@pytest.fixture\ndef topology(): pass\ndef test_it(topology, veth): pass"
    assert asked(source) == ("veth",)


def test_a_fixture_that_extends_the_one_of_its_name_asks_for_it() -> None:
    source = "@pytest.fixture\ndef topology(topology): pass\ndef test_it(topology): pass"
    assert asked(source) == ("topology",)


@pytest.mark.parametrize("source", ["from .fixtures import *", "try:\n    from mine import  *\nexcept OSError: pass"])
def test_a_source_may_import_all_names_of_another(source: str) -> None:
    assert mentions(source).imports_all


@pytest.mark.parametrize("source", ["from vethlib import *", "x = 'import *, topology'", "from mine import net, veth"])
def test_other_imports_import_no_unknown_names(source: str) -> None:
    assert not mentions(source).imports_all


def test_a_module_of_ours_with_the_name_is_no_fixture_of_the_project() -> None:
    assert asked("from vethlib import topology\ndef test_it(topology): pass") == ("topology",)


def test_a_source_that_warns_is_read_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asked(r"x = '\d'" + "\ndef test_it(veth): pass") == ("veth",)


def test_a_source_without_the_words_is_not_even_parsed() -> None:
    assert look(b"this is ( no Python", bool, bool) is NOTHING


def test_a_source_that_ends_nowhere_costs_no_more_than_its_length() -> None:
    # A search that begins again at each "def" would take minutes for this.
    assert asked("def f(a, b\n" * 20_000 + "veth") == ()
