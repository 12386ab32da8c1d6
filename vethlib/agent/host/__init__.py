"""The host: observe it, execute a plan on it, and record the pairs that were built."""

from .execution import execute
from .observation import observe, with_settings

__all__ = ["execute", "observe", "with_settings"]
