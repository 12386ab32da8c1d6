"""What a tenant may do to its end of a pair."""

from __future__ import annotations

from tests.live.applying import LABEL
from tests.live.configuring import quickly

__all__ = ["REWRITES", "rewrite"]

# What a tenant may do to its end of a pair whose other end is in home, or elsewhere.
REWRITES = {
    "alias": ["link set dev a alias mine"],
    "no alias": ['link set dev a alias ""'],
    "group": ["link set dev a group 7"],
    "both": ["link set dev a alias mine", "link set dev a group 7"],
    "another interface": [f"link set dev a alias 'vethlib label={LABEL} name=qa'"],
    "another label": ["link set dev a alias 'vethlib label=other name=a'"],
    "name": ["link set dev a down", "link set dev a name other", "link set dev other alias mine"],
    "mac": ["link set dev a address 02:00:00:00:00:77", "link set dev a alias mine"],
    "all": [
        "link set dev a down",
        "link set dev a name other",
        "link set dev other address 02:00:00:00:00:77 alias mine",
        "link set dev other group 7",
    ],
}


def rewrite(how: str, netns: str = "blue") -> None:
    quickly(*REWRITES[how], netns=netns)
