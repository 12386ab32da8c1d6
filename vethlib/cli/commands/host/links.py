"""create, set, move and delete."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from vethlib.cli.arguments.references import existing_link, parse_link, parse_netns
from vethlib.cli.host.view import View
from vethlib.cli.term.exits import DONE, report
from vethlib.cli.term.output import Output
from vethlib.cli.term.progress import Progress
from vethlib.cli.term.text import paint
from vethlib.errors import BatchError, InvalidValue, NotSupported
from vethlib.links import End, Link, Veth, check_name, describe
from vethlib.session import Session
from vethlib.session.core.namespaces import Birth

__all__ = ["create", "delete", "move", "set_link"]


def create(args: Namespace, output: Output) -> int:
    """Create one pair."""
    ends = [_end(args, letter) for letter in ("a", "b")]
    refs = [str(end.netns) for end in ends]
    with Session() as session:
        pair = session.create(Veth(*ends), wait=args.wait)
        if output.as_json:
            view = View(session, refs)
            links = zip(pair, refs, strict=True)
            output.json([view.as_dict(view.find(link.name, ref, "create")) for link, ref in links])
            return DONE
    for link, ref in zip(pair, refs, strict=True):
        output.line(f"{paint('+', 'good')} {describe(link.name, ref)}  index {link.index}  {link.mac}")
    return DONE


def _end(args: Namespace, letter: str) -> End:
    """Return an end from its flags. Raises InvalidValue with the name of the flag."""
    name, ref = parse_link(getattr(args, letter), letter.upper())
    flags = {"name": letter.upper(), "addresses": f"--{letter}-addr", "altnames": f"--{letter}-altname"}
    flags |= {"mac": f"--{letter}-mac", "ipv6": f"--{letter}-ipv6", "sysctls": f"--{letter}-sysctl"}
    flags |= {"routes": f"--{letter}-route", "neighbours": f"--{letter}-neighbour"}
    flags |= {"offload": f"--{letter}-offload", "master": f"--{letter}-master"}
    flags |= {"mtu": "--mtu", "txqlen": "--txqlen", "gso_max_size": "--gso-max-size"}
    try:
        return End(
            name,
            ref,
            mac=getattr(args, f"{letter}_mac"),
            mtu=args.mtu,
            addresses=getattr(args, f"{letter}_addr"),
            up=not args.down,
            num_queues=args.queues,
            ipv6=_on(getattr(args, f"{letter}_ipv6")),
            txqlen=args.txqlen,
            gso_max_size=args.gso_max_size,
            altnames=getattr(args, f"{letter}_altname"),
            master=getattr(args, f"{letter}_master"),
            sysctls=getattr(args, f"{letter}_sysctl"),
            routes=getattr(args, f"{letter}_route"),
            neighbours=getattr(args, f"{letter}_neighbour"),
            offload=_on(getattr(args, f"{letter}_offload")),
        )
    except InvalidValue as error:
        value = _given(error, args, f"{letter}_{error.field}")
        raise InvalidValue(flags.get(error.field, "--queues"), value, error.hint) from None


def _given(error: InvalidValue, args: Namespace, dest: str) -> object:
    """Return the value of a flag as it was given: "off" if the error is about False."""
    return getattr(args, dest, error.value) if isinstance(error.value, bool) else error.value


def _on(flag: str | None) -> bool | None:
    return None if flag is None else flag == "on"


# The fields of Session.set that flags of other names give.
_OTHER_FLAGS = {"new_name": "--name", "addresses": "--addr", "altnames": "--altname", "sysctls": "--sysctl"}
_OTHER_FLAGS |= {"routes": "--route", "neighbours": "--neighbour"}


def set_link(args: Namespace, output: Output) -> int:
    """Change a link."""
    name, ref = existing_link(args.link)
    up, ipv6 = True if args.up else False if args.down else None, _on(args.ipv6)
    fields = {"mac": args.mac, "mtu": args.mtu, "alias": args.alias, "up": up, "ipv6": ipv6, "txqlen": args.txqlen}
    fields |= {"gso_max_size": args.gso_max_size, "addresses": args.addr, "altnames": args.altname}
    fields |= {"new_name": args.name, "sysctls": args.sysctl, "routes": args.route}
    fields |= {"neighbours": args.neighbour, "offload": _on(args.offload), "master": args.master}
    given: dict[str, Any] = {field: value for field, value in fields.items() if value is not None}
    if not given and args.wait is None:
        raise InvalidValue("LINK", args.link, "no change is given: give at least one flag, such as --mtu 1400")
    if args.down and args.wait is not None:
        raise InvalidValue("--wait", args.wait, "leave it out: a link that is set --down cannot be used")
    with Session() as session:
        try:
            link = session.set(name, ref, wait=args.wait, **given)
        except InvalidValue as error:
            flag = _OTHER_FLAGS.get(error.field, f"--{error.field.replace('_', '-')}")
            raise InvalidValue(flag, _given(error, args, error.field), error.hint) from None
        return _changed(session, link, ref, "set", output)


def move(args: Namespace, output: Output) -> int:
    """Move one link."""
    name, ref = existing_link(args.link)
    to = parse_netns(args.to, "NETNS")
    if args.name is not None:
        check_name(args.name, "--name")
    with Session() as session:
        link = session.move(name, ref, to=to, name=args.name)
        return _changed(session, link, to, "move", output)


def _changed(session: Session, link: Link, ref: str, request: str, output: Output) -> int:
    """Print a link that was changed, and return the exit code."""
    if output.as_json:
        view = View(session, [ref])
        output.json([view.as_dict(view.find(link.name, ref, request))])
    else:
        now = "up" if link.up else "down"
        output.line(f"{paint('~', 'warning')} {describe(link.name, ref)}  index {link.index}  {link.mac}  {now}")
    return DONE


def delete(args: Namespace, output: Output) -> int:
    """Delete pairs, and show those links that were there, also if others could not be deleted."""
    items = list(dict.fromkeys(existing_link(text) for text in args.links))
    existed: dict[tuple[str, str], tuple[object, int]] = {}
    failure: BatchError | None = None

    def note(item: Any, link: Link, birth: Birth) -> bool:
        existed[item] = birth, link.index
        return True

    with Session() as session, Progress() as progress:
        try:
            session.delete_many(
                items,
                missing_ok=args.missing_ok,
                only_if=note,
                progress=lambda done, total: progress("delete", done, total),
            )
        except BatchError as error:
            failure = error
    failed = {each.item for each in failure.exceptions} if failure is not None else set()
    # A link that is given by two names is shown once.
    deleted = {existed[item]: item for item in reversed(items) if item in existed and item not in failed}
    shown = sorted(deleted.values(), key=items.index)
    if output.as_json and (shown or failure is None):
        output.json([{"netns": ref, "name": name} for name, ref in shown])
    elif not output.as_json and failure is not None:
        output.lines(f"{paint('-', 'bad')} {describe(name, ref)}" for name, ref in shown)
    errors = () if failure is None else failure.exceptions
    return max((report(output, error, hint=_advice(error)) for error in errors), default=DONE)


def _advice(error: Exception) -> str | None:
    """Return what to do if a link could not be deleted; None for the usual advice."""
    return "to delete a link of another kind: ip link delete" if isinstance(error, NotSupported) else None
