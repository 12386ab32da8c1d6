"""The former module of `observe`, which is now in :mod:`vethlib.agent.host`."""

from vethlib._former import former

__getattr__ = former(__name__, {"observe": "vethlib.agent.host"})
