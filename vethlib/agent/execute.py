"""The former module of `execute`, which is now in :mod:`vethlib.agent.host`."""

from vethlib._former import former

__getattr__ = former(__name__, {"execute": "vethlib.agent.host"})
