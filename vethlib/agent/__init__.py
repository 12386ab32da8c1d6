"""The declarative half: what a host's interfaces should be, and what it takes to get there.

Configuration comes in as JSON (:func:`load`, :func:`read`) and becomes :class:`Interface` objects; :func:`plan`
compares those with what was :class:`Observed` and says what to do.
"""

from .files import Configuration, UnreadablePath, load
from .jsontext import Undecodable
from .mark import ADDRESS_PROTO, Mark, alias_of, check_label, group_of, is_ours, read_alias
from .model import Interface, InterfaceType, InvalidInterface, Namespace, NamespaceType
from .northbound import Parsed, read, read_one, read_value, to_dict, to_json
from .observed import LinkId, Observed, Place, SeenLink, SeenNetns
from .operations import AddNetns, ChangeLink, CreatePair, DeletePair, Operation, Plan
from .plan import plan
from .state import State, Verdict

__all__ = [
    "ADDRESS_PROTO",
    "AddNetns",
    "ChangeLink",
    "Configuration",
    "CreatePair",
    "DeletePair",
    "Interface",
    "InterfaceType",
    "InvalidInterface",
    "LinkId",
    "Mark",
    "Namespace",
    "NamespaceType",
    "Observed",
    "Operation",
    "Parsed",
    "Place",
    "Plan",
    "SeenLink",
    "SeenNetns",
    "State",
    "Undecodable",
    "UnreadablePath",
    "Verdict",
    "alias_of",
    "check_label",
    "group_of",
    "is_ours",
    "load",
    "plan",
    "read",
    "read_alias",
    "read_one",
    "read_value",
    "to_dict",
    "to_json",
]
