"""Optional questions to a resolver, apart from the reference of a label.

A resolver is foreign code: an exception or a bad answer affects only the label that it was asked for. Each
question here has an answer for that case. `ns.reference.resolved` asks for the answer itself.
"""

from __future__ import annotations

from collections.abc import Callable

from vethlib.errors import VethError
from vethlib.ns.reference import raised_by_resolver

from .resolver import Resolver, SharesHome

__all__ = ["changed_labels", "remark_of", "shares_home"]


def remark_of(remark: Callable[[str], str], label: str) -> str:
    """Return the remark about a label; "" if the resolver raises on purpose, as its answer has the reason then."""
    try:
        text = remark(label)
    except VethError:
        return ""
    except Exception as error:
        return str(raised_by_resolver(error, "there may be a remark"))
    return text if isinstance(text, str) else ""


def changed_labels(resolver: Resolver) -> list[str] | None:
    """Return the labels whose reference may have changed, None for all. Raises VethError if that is unknown."""
    try:
        changed = resolver.changed()
        labels = None if changed is None else [changed] if isinstance(changed, str) else list(changed)
    except Exception as error:
        raise raised_by_resolver(error, "changes of microservices are not reported") from error
    return labels if labels is None or all(isinstance(label, str) for label in labels) else None


def shares_home(resolver: object, label: str) -> bool:
    """Return whether the process of a label is in the home namespace on purpose. Raises VethError if it is unknown."""
    try:
        return isinstance(resolver, SharesHome) and bool(resolver.shares_home(label))
    except VethError:
        raise
    except Exception as error:
        what = f"it is unknown whether microservice {label} shares the home namespace"
        raise raised_by_resolver(error, what) from error
