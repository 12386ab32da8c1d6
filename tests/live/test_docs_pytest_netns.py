"""The page about the plugin: its options are those there are. Its examples are run by test_docs.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .plugin import Project

pytestmark = pytest.mark.docs

PAGE = (Path(__file__).parents[2] / "docs" / "pytest-netns.md").read_text()
RECIPES = PAGE.partition("## Six recipes")[2].partition("\n## ")[0]


def test_there_are_six_recipes_each_with_an_example() -> None:
    recipes = RECIPES.split("\n### ")[1:]
    assert len(recipes) == 6
    assert all("```python" in recipe for recipe in recipes)


def test_the_page_names_every_option_and_setting(pytester: pytest.Pytester) -> None:
    told = Project(pytester).run("--help").stdout.str()
    options = set(re.findall(r"--netns-\w+", told))
    settings = set(re.findall(r"\bnetns_(?:isolate|workers|leaks|pcap|impair|keep|dir|nodes)\b", told))
    assert options == set(re.findall(r"--netns-\w+", PAGE))
    assert settings <= set(re.findall(r"\bnetns_\w+", PAGE))
