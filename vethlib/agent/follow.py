"""The former name of :mod:`vethlib.follow`."""

from vethlib._former import former

__getattr__ = former(
    __name__,
    {
        "DockerResolver": "vethlib.follow.docker",
        "Follower": "vethlib.follow",
        "MemoryResolver": "vethlib.follow",
        "Resolver": "vethlib.follow",
        "ResolverDown": "vethlib.follow",
        "SharesHome": "vethlib.follow",
    },
)
