"""Write the northbound model as JSON, strictly: snake_case, enums as numbers, defaults left out.

The keys and their order come from the descriptors of northbound.proto.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format

from . import northbound_pb2 as pb
from .model import Interface
from .namespace import FIELD_READ

__all__ = ["to_dict", "to_json"]


def to_dict(interface: Interface) -> dict[str, Any]:
    """Return the interface as a JSON object: snake_case, enums as numbers, in a fixed order.

    Defaults are left out unless they were present in the value that was read.
    """
    namespace = interface.namespace
    message = pb.Interface(
        name=interface.name,
        description=interface.description,
        type=pb.InterfaceType.ValueType(interface.type),
        enabled=interface.enabled,
        phys_address=interface.phys_address,
        mtu=interface.mtu,
        ip_addresses=interface.ip_addresses,
        host_if_name=interface.host_if_name,
        veth=pb.Veth(peer_if_name=interface.peer_if_name),
        num_queues=interface.num_queues,
        link_only=interface.link_only,
        ipv6=interface.ipv6,
        txqlen=interface.txqlen,
        gso_max_size=interface.gso_max_size,
        altnames=interface.altnames,
        master=interface.master,
        sysctls=dict(interface.further.get("sysctls", ())),
        offload=interface.offload if isinstance(interface.offload, bool) else None,
        routes=[pb.Route(**route.as_dict()) for route in interface.routes],
        neighbours=[pb.Neighbour(**neighbour.as_dict()) for neighbour in interface.neighbours],
    )
    if namespace.ref:
        message.namespace.type = pb.NamespaceType.ValueType(namespace.type)
        for field in FIELD_READ.values():
            setattr(message.namespace, field, getattr(namespace, field))
    values = json_format.MessageToDict(message, preserving_proto_field_name=True, use_integers_for_enums=True)
    if not interface.explicit:
        return values
    if "namespace.type" in interface.explicit and namespace.ref:
        values["namespace"] = {"type": 0} | values["namespace"]
    fields = pb.Interface.DESCRIPTOR.fields
    written = {field.name: field.default_value for field in fields if field.name in interface.explicit} | values
    return {field.name: written[field.name] for field in fields if field.name in written}


def to_json(interface: Interface, *, indent: int | None = None) -> str:
    """Return the result of :func:`to_dict` as text; `indent` as in :func:`json.dumps`."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(to_dict(interface), indent=indent, separators=separators, ensure_ascii=False)
