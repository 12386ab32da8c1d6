"""What tests check of a refusal: its class and its fields. Its sentence is in the table of live/test_sentences.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

__all__ = ["raises"]

E = TypeVar("E", bound=BaseException)


@contextmanager
def raises(kind: type[E], **fields: Any) -> Iterator[pytest.ExceptionInfo[E]]:
    """Do the same as pytest.raises(), for an exception that has these values in its fields."""
    with pytest.raises(kind) as caught:
        yield caught
    found = {name: getattr(caught.value, name, None) for name in fields}
    assert found == fields, f"{kind.__name__} with {found}, not with {fields}"
