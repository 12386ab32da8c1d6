"""Objects that hold descriptors cannot be copied: the copy would close those of the original."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from vethlib import IfIndexCache, Session
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import Follower
from vethlib.monitor import Monitor

HOLDERS: dict[str, Callable[[Session], Any]] = {
    "session": lambda _: Session(),
    "cache": IfIndexCache,
    "monitor": Monitor,
    "configurator": Configurator,
    "follower": lambda _: Follower(None),
}


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_a_copy_is_refused_and_the_original_goes_on(
    session: Session, holder: Callable[[Session], Any], way: Callable[[Any], object]
) -> None:
    with holder(session) as original:
        with pytest.raises(TypeError):
            way(original)
        gc.collect()
        original.close()  # it still has its descriptors
