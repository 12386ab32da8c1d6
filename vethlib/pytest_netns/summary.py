"""The end of a run: what is kept is told once more, where it is not overlooked, whichever process ran the test."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["KEPT", "tell_kept"]

KEPT: Final = "netns kept"
"""The title of the section of a report that tells of it."""


def tell_kept(terminalreporter: Any) -> None:
    """Tell what the sections of all reports tell of what is kept."""
    reports = [report for those in terminalreporter.stats.values() for report in those]
    told = [text for one in reports for title, text in getattr(one, "sections", ()) if title == KEPT]
    if told:
        terminalreporter.section("topologies that are kept")
        for text in dict.fromkeys(told):
            terminalreporter.line(text)
