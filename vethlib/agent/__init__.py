"""The declarative half: what a host's interfaces should be, and what it takes to get there.

Configuration comes in as JSON (:func:`load`, :func:`read`) and becomes :class:`Interface` objects; :func:`plan`
compares those with what was :class:`Observed` and says what to do. A :class:`Configurator` keeps a host so.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .files import Configuration, UnreadablePath, load
from .inverse import Inverse, Irreversible, inverse, irreversible, links_at_stake
from .jsontext import Undecodable
from .mark import ADDRESS_PROTO, Mark, alias_of, check_label, group_of, is_ours, read_alias
from .model import Interface, InterfaceType, InvalidInterface, Namespace, NamespaceType
from .northbound import Parsed, read, read_one, read_value, to_dict, to_json
from .observed import LinkId, Observed, Place, SeenLink, SeenNetns
from .operations import AddNetns, ChangeLink, CreatePair, DeletePair, Operation, Plan, RemoveNetns
from .plan import plan
from .state import State, Verdict

if TYPE_CHECKING:
    from .configurator import Configurator as Configurator
    from .dependants import Attachment as Attachment
    from .dependants import Dependant as Dependant
    from .follow import MemoryResolver as MemoryResolver
    from .follow import Resolver as Resolver
    from .follow import ResolverDown as ResolverDown
    from .follow.docker import DockerResolver as DockerResolver
    from .hooks import HookCounts as HookCounts
    from .hooks import Hooks as Hooks
    from .indexes import IndexEntry as IndexEntry
    from .indexes import Indexes as Indexes
    from .indexes import IndexEvent as IndexEvent
    from .packet import PacketPort as PacketPort
    from .status import Status as Status
    from .statuses import StatusChange as StatusChange
    from .stores.directory import DirectoryStore as DirectoryStore
    from .stores.memory import MemoryStore as MemoryStore
    from .stores.protocol import Store as Store
    from .subscriptions import Subscription as Subscription

# What validating a file does not need is imported when it is asked for: it takes 30 ms.
_MODULES = {
    "Attachment": "dependants",
    "Configurator": "configurator",
    "Dependant": "dependants",
    "DirectoryStore": "stores.directory",
    "DockerResolver": "follow.docker",
    "HookCounts": "hooks",
    "Hooks": "hooks",
    "IndexEntry": "indexes",
    "IndexEvent": "indexes",
    "Indexes": "indexes",
    "MemoryResolver": "follow",
    "MemoryStore": "stores.memory",
    "PacketPort": "packet",
    "Resolver": "follow",
    "ResolverDown": "follow",
    "Status": "status",
    "StatusChange": "statuses",
    "Store": "stores.protocol",
    "Subscription": "subscriptions",
}

__all__ = [
    "ADDRESS_PROTO",
    "AddNetns",
    "Attachment",
    "ChangeLink",
    "Configuration",
    "Configurator",
    "CreatePair",
    "DeletePair",
    "Dependant",
    "DirectoryStore",
    "DockerResolver",
    "HookCounts",
    "Hooks",
    "IndexEntry",
    "IndexEvent",
    "Indexes",
    "Interface",
    "InterfaceType",
    "InvalidInterface",
    "Inverse",
    "Irreversible",
    "LinkId",
    "Mark",
    "MemoryResolver",
    "MemoryStore",
    "Namespace",
    "NamespaceType",
    "Observed",
    "Operation",
    "PacketPort",
    "Parsed",
    "Place",
    "Plan",
    "RemoveNetns",
    "Resolver",
    "ResolverDown",
    "SeenLink",
    "SeenNetns",
    "State",
    "Status",
    "StatusChange",
    "Store",
    "Subscription",
    "Undecodable",
    "UnreadablePath",
    "Verdict",
    "alias_of",
    "check_label",
    "group_of",
    "inverse",
    "irreversible",
    "is_ours",
    "links_at_stake",
    "load",
    "plan",
    "read",
    "read_alias",
    "read_one",
    "read_value",
    "to_dict",
    "to_json",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
