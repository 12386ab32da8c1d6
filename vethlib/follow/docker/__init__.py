"""Resolve microservices by the containers of a Docker Engine or of podman's service.

`resolver.py` has the public class, which follows the engine's events; `engine.py` finds the engine and connects to it,
`asking.py` sends requests, and `containers.py` interprets the answers. The Docker SDK is imported with the first
request.
"""

from .resolver import DockerResolver

__all__ = ["DockerResolver"]
