"""The declarative half of vethlib: the desired state of a host, and how to reach and maintain it.

:func:`load` and :func:`read` turn a configuration in JSON into :class:`Interface` objects. :func:`plan` compares these
with the :class:`Observed` state of the host and returns a :class:`Plan` of operations. A :class:`Configurator`
maintains the desired state continuously.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vethlib.follow import MemoryResolver as MemoryResolver
    from vethlib.follow import Resolver as Resolver
    from vethlib.follow import ResolverDown as ResolverDown
    from vethlib.follow.docker.resolver import DockerResolver as DockerResolver

    from .config.files import Configuration as Configuration
    from .config.files import UnreadablePath as UnreadablePath
    from .config.files import load as load
    from .config.jsontext import Undecodable as Undecodable
    from .config.mark import ADDRESS_PROTO as ADDRESS_PROTO
    from .config.mark import Mark as Mark
    from .config.mark import alias_of as alias_of
    from .config.mark import check_label as check_label
    from .config.mark import group_of as group_of
    from .config.mark import is_ours as is_ours
    from .config.mark import read_alias as read_alias
    from .config.model import Interface as Interface
    from .config.model import InterfaceType as InterfaceType
    from .config.namespace import Namespace as Namespace
    from .config.namespace import NamespaceType as NamespaceType
    from .config.northbound import Parsed as Parsed
    from .config.northbound import read as read
    from .config.northbound import read_one as read_one
    from .config.northbound import read_value as read_value
    from .config.problems import InvalidInterface as InvalidInterface
    from .config.writing import to_dict as to_dict
    from .config.writing import to_json as to_json
    from .hooks import HookCounts as HookCounts
    from .hooks import Hooks as Hooks
    from .limits import Limits as Limits
    from .planning.observed import LinkId as LinkId
    from .planning.observed import NetnsId as NetnsId
    from .planning.observed import Observed as Observed
    from .planning.observed import SeenLink as SeenLink
    from .planning.observed import SeenNetns as SeenNetns
    from .planning.operations import AddNetns as AddNetns
    from .planning.operations import ChangeLink as ChangeLink
    from .planning.operations import CreatePair as CreatePair
    from .planning.operations import DeletePair as DeletePair
    from .planning.operations import Operation as Operation
    from .planning.operations import Plan as Plan
    from .planning.operations import RemoveNetns as RemoveNetns
    from .planning.planner import plan as plan
    from .planning.undo.inversion import Inverse as Inverse
    from .planning.undo.inversion import inverse as inverse
    from .planning.undo.losses import Irreversible as Irreversible
    from .planning.undo.losses import irreversible as irreversible
    from .planning.undo.losses import links_at_stake as links_at_stake
    from .reasons import Reason as Reason
    from .reasons import ReasonCode as ReasonCode
    from .reconcile.configurator import Configurator as Configurator
    from .reconcile.statuses import StatusChange as StatusChange
    from .registry.dependants import Attachment as Attachment
    from .registry.dependants import Dependant as Dependant
    from .registry.indexes import IndexEntry as IndexEntry
    from .registry.indexes import Indexes as Indexes
    from .registry.indexes import IndexEvent as IndexEvent
    from .registry.packet import PacketPort as PacketPort
    from .registry.subscriptions import Subscription as Subscription
    from .state import State as State
    from .state import Verdict as Verdict
    from .status import Status as Status
    from .stores.files.directory import DirectoryStore as DirectoryStore
    from .stores.memory import MemoryStore as MemoryStore
    from .stores.protocol import Store as Store

    Place = NetnsId

# Each name is imported when it is first used: protobuf alone takes 20 ms, and not everybody needs it.
_MODULES = {
    "ADDRESS_PROTO": ".config.mark",
    "AddNetns": ".planning.operations",
    "Attachment": ".registry.dependants",
    "ChangeLink": ".planning.operations",
    "Configuration": ".config.files",
    "Configurator": ".reconcile.configurator",
    "CreatePair": ".planning.operations",
    "DeletePair": ".planning.operations",
    "Dependant": ".registry.dependants",
    "DirectoryStore": ".stores.files.directory",
    "DockerResolver": "vethlib.follow.docker.resolver",
    "HookCounts": ".hooks",
    "Hooks": ".hooks",
    "IndexEntry": ".registry.indexes",
    "IndexEvent": ".registry.indexes",
    "Indexes": ".registry.indexes",
    "Interface": ".config.model",
    "InterfaceType": ".config.model",
    "InvalidInterface": ".config.problems",
    "Inverse": ".planning.undo.inversion",
    "Irreversible": ".planning.undo.losses",
    "Limits": ".limits",
    "LinkId": ".planning.observed",
    "Mark": ".config.mark",
    "MemoryResolver": "vethlib.follow",
    "MemoryStore": ".stores.memory",
    "Namespace": ".config.namespace",
    "NamespaceType": ".config.namespace",
    "NetnsId": ".planning.observed",
    "Observed": ".planning.observed",
    "Operation": ".planning.operations",
    "PacketPort": ".registry.packet",
    "Parsed": ".config.northbound",
    "Plan": ".planning.operations",
    "Reason": ".reasons",
    "ReasonCode": ".reasons",
    "RemoveNetns": ".planning.operations",
    "Resolver": "vethlib.follow",
    "ResolverDown": "vethlib.follow",
    "SeenLink": ".planning.observed",
    "SeenNetns": ".planning.observed",
    "State": ".state",
    "Status": ".status",
    "StatusChange": ".reconcile.statuses",
    "Store": ".stores.protocol",
    "Subscription": ".registry.subscriptions",
    "Undecodable": ".config.jsontext",
    "UnreadablePath": ".config.files",
    "Verdict": ".state",
    "alias_of": ".config.mark",
    "check_label": ".config.mark",
    "group_of": ".config.mark",
    "inverse": ".planning.undo.inversion",
    "irreversible": ".planning.undo.losses",
    "is_ours": ".config.mark",
    "links_at_stake": ".planning.undo.losses",
    "load": ".config.files",
    "plan": ".planning.planner",
    "read": ".config.northbound",
    "read_alias": ".config.mark",
    "read_one": ".config.northbound",
    "read_value": ".config.northbound",
    "to_dict": ".config.writing",
    "to_json": ".config.writing",
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
    "Limits",
    "LinkId",
    "Mark",
    "MemoryResolver",
    "MemoryStore",
    "Namespace",
    "NamespaceType",
    "NetnsId",
    "Observed",
    "Operation",
    "PacketPort",
    "Parsed",
    "Plan",
    "Reason",
    "ReasonCode",
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


# Names that were replaced. They still work, with a DeprecationWarning.
_FORMER = {"Place": "NetnsId"}


def __getattr__(name: str) -> Any:
    if name in _FORMER:
        present = _FORMER[name]
        warnings.warn(f"{__name__}.{name} is now {__name__}.{present}", DeprecationWarning, stacklevel=2)
        name = present
    if name in _MODULES:
        return getattr(import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
