"""Routes and neighbours over a link: some to be given, and how to read those of a link."""

from __future__ import annotations

from tests.witness import ip
from vethlib import Neighbour, Route

MAC = "02:00:00:00:00:09"
ROUTES = [
    Route("10.7.0.0/16", via="10.0.0.2", src="10.0.0.1"),
    Route("10.8.0.0/16", metric=7, table=77),
    Route("fd07::/64", via="fd00::2", mtu=1400),
]
NEIGHBOURS = [Neighbour("10.0.0.9", MAC), Neighbour("fd00::9", MAC)]


def dependents(name: str = "a") -> list[str]:
    """Return the routes over a link, and its neighbours that were not learned, as words.

    The kernel adds its own IPv6 routes later than the address, so these are left out.
    """
    found = []
    for family in ("-4", "-6"):
        for each in ip(family, "route", "show", "dev", name, "table", "all", netns="blue"):
            if family == "-4" or each.get("protocol") not in ("kernel", "redirect", "ra"):
                found.append(" ".join(f"{key} {value}" for key, value in sorted(each.items()) if key != "flags"))
    for each in ip("neighbour", "show", "dev", name, "nud", "all", netns="blue"):
        if each.get("state") in (["PERMANENT"], ["NOARP"]) and not each["lladdr"].startswith(("33:33", "01:00:5e")):
            known = ("dst", "lladdr", "state", "protocol", "router")
            found.append(" ".join(f"{key} {each[key]}" for key in known if key in each))
    return sorted(found)
