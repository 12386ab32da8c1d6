"""List kept topologies once more at the end of a run, whichever process ran the test."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["KEPT", "tell_kept"]

KEPT: Final = "netns kept"
"""The title of the section of a report about kept topologies."""


def tell_kept(terminalreporter: Any) -> None:
    """Repeat the sections of all reports about kept topologies."""
    reports = [report for those in terminalreporter.stats.values() for report in those]
    texts = [text for report in reports for title, text in getattr(report, "sections", ()) if title == KEPT]
    if texts:
        terminalreporter.section("topologies that are kept")
        for text in dict.fromkeys(texts):
            terminalreporter.line(text)
