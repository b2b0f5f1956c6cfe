# SPDX-License-Identifier: MIT
"""`uoa send`: datagrams in any dialect, well-formed or not, from a real socket.

What a dialect adds is built by libuoa or given in hex, and goes out by the way
that it needs: options as ancillary data, opp by a raw socket, the others in
front of the payload. Then libuoa's parser tells what a receiver makes of it.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from uoa import wire
from uoa._exceptions import BackendError, ConfigurationError, UOAError, WireError
from uoa.cli import _ancillary, _hostport, _raw
from uoa.cli.decode import facts, lines, unhex

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = 1
NO_DIALECT = "none"

_PROTO_UDP = 17
_EXT_DST_OPTS = 60
_ROOM = 65536


class _Added(NamedTuple):
    """What the datagram carries besides its payload; empty bytes: nothing."""

    option: bytes = b""
    """The IPv4 option area, or the whole IPv6 Destination Options header."""
    opp: bytes = b""
    """The header between IP and UDP."""
    header: bytes = b""
    """What stands in front of the payload."""


def _added(args: argparse.Namespace, dialect: str, outer: int) -> _Added:
    """Return the parts of the datagrams: given as they are, or built."""

    def built() -> bytes:
        return wire.build(dialect, args.client, vip=args.vip, vni=args.vni, outer=outer)

    option = opp = header = b""
    if dialect == "opp":
        opp = built() if args.option is None else args.option
    elif args.option is not None:
        option = args.option
    elif dialect != NO_DIALECT and dialect not in wire.PAYLOAD_DIALECTS:
        option = built()
    if args.header is not None:
        header = args.header
    elif args.local:
        header = wire.build_local()
    elif dialect in wire.PAYLOAD_DIALECTS:
        header = built()
    return _Added(option, opp, header)


# ---- The packet as the receiver gets it ----------------------------------------


def _checksum(header: bytes) -> bytes:
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, len(header), 2))
    return (~(total % 0xFFFF) & 0xFFFF).to_bytes(2, "big")


def packet(src: tuple[str, int], dst: tuple[str, int], added: _Added, payload: bytes) -> bytes:
    """Return a whole IP packet, as the kernel makes it.

    Raises:
        WireError: it would be too long.
    """
    is_ipv6 = ":" in dst[0]
    _two((8 if is_ipv6 else 28) + len(added.header) + len(payload))
    ip = wire.build(None, src=src, dst=dst, payload=added.header + payload)
    if is_ipv6:
        ip, udp = ip[:40], ip[40:]
        protocol = _EXT_DST_OPTS if added.option else _raw.PROTO_OPP if added.opp else _PROTO_UDP
        between = added.opp
        if added.option:  # the kernel fills in Next Header, and takes what the length octet says
            length = (added.option[1] + 1) * 8 if len(added.option) > 1 else 1
            between = bytes([_PROTO_UDP]) + added.option[1:length]
        size = _two(len(between) + len(udp))
        return ip[:4] + size + bytes([protocol]) + ip[7:] + between + udp
    ip, udp = ip[:20], ip[20:]
    option = added.option + bytes(-len(added.option) % 4)  # the kernel pads with END
    if len(option) > 40:
        raise WireError(f"--option: {len(option)} bytes do not fit an IPv4 header: 40 do")
    first = bytes([0x45 + len(option) // 4])
    size = _two(20 + len(option) + len(added.opp) + len(udp))
    protocol = _raw.PROTO_OPP if added.opp else _PROTO_UDP
    ip = first + ip[1:2] + size + ip[4:9] + bytes([protocol, 0, 0]) + ip[12:] + option
    return ip[:10] + _checksum(ip) + ip[12:] + added.opp + udp


def _two(length: int) -> bytes:
    if length > 0xFFFF:
        raise WireError(f"the packet would have {length} bytes: shorten the payload")
    return length.to_bytes(2, "big")


# ---- Sending -------------------------------------------------------------------


def _explained(error: OSError, added: _Added, to: str) -> UOAError:
    """Return the error that says what to do about what the kernel said."""
    if (added.option or added.opp) and not _raw.is_allowed():
        what = "IP options need" if added.option else "protocol 248 needs"
        return BackendError(
            f"send: {what} CAP_NET_RAW: be root, or run inside `unshare -Urn`; "
            "or use --dialect ppv2, which needs no privilege"
        )
    if added.option and error.errno == errno.EINVAL:
        return BackendError(
            f"send: option {added.option.hex()}: the kernel refuses to send it: it takes options "
            "whose lengths fit their header; `uoa decode` judges any bytes"
        )
    if error.errno == errno.EMSGSIZE:
        return BackendError(f"send: to {to}: {error.strerror}: shorten the payload")
    return BackendError(f"send: to {to}: {error.strerror or error}: check address and route")


class _Sender:
    """A UDP socket connected to the receiver, and a raw one beside it where opp is to be sent."""

    def __init__(self, to: tuple[str, int], bind: tuple[str, int] | None) -> None:
        """Find the way to the receiver.

        Raises:
            OSError: there is none, or the local address is not to be had.
        """
        self.refused = False
        self._family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
        self._udp = socket.socket(self._family, socket.SOCK_DGRAM)
        self._opp: _raw.OppSocket | None = None
        try:
            if bind is not None:
                self._udp.bind(bind)
            self._udp.connect(to)
        except OSError:
            self._udp.close()
            raise
        self.src: tuple[str, int] = self._udp.getsockname()[:2]
        self.dst: tuple[str, int] = self._udp.getpeername()[:2]

    def close(self) -> None:
        """Close the sockets."""
        self._udp.close()
        if self._opp is not None:
            self._opp.close()

    def send(self, added: _Added, payload: bytes) -> None:
        """Send one datagram.

        Raises:
            OSError: the kernel refuses it.
        """
        # An earlier datagram's ICMP error would be told in place of this one's fate.
        self.look_for_refusal()
        if added.opp:
            self._opp = self._opp or _raw.OppSocket(self._udp)
            self._opp.send(added.opp, added.header + payload)
            return
        ancillary = _ancillary.options(added.option, 6 if self._family == socket.AF_INET6 else 4)
        self._udp.sendmsg([added.header, payload], ancillary)

    def look_for_refusal(self) -> None:
        """Note whether an ICMP error said that nobody listens."""
        if self._udp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
            self.refused = True

    def replies(self, most: int, seconds: float) -> Iterator[bytes]:
        """Wait for replies, until `most` are there or the time is up."""
        deadline = time.monotonic() + seconds
        for _ in range(most):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._udp.settimeout(left)
            try:
                yield self._udp.recv(_ROOM)
            except TimeoutError:
                return
            except ConnectionRefusedError:
                self.refused = True
                return


# ---- What comes out ------------------------------------------------------------


def _reply_text(reply: bytes) -> str:
    text = reply.decode(errors="replace").rstrip("\n")
    return text if text.isprintable() else reply.hex()


def _print(report: dict[str, Any], decoded: wire.Decoded) -> None:
    size = f"{report['payload_length']} bytes"
    count = report["sent"]
    datagrams = "1 datagram" if count == 1 else f"{count} datagrams"
    print(f"sent     {datagrams} with a payload of {size}, dialect {report['dialect']}")
    print(f"packet   {report['packet']}")
    print(*lines(decoded), sep="\n")
    for reply in report["replies"]:
        data = bytes.fromhex(reply)
        print(f"reply    {len(data)} bytes: {_reply_text(data)}")
    if report["refused"]:
        print("reply    nobody listens there (ICMP port unreachable)")
    elif report["waited"] and not report["replies"]:
        print(f"reply    none within {report['waited']:g} s")


def run(args: argparse.Namespace) -> int:
    """Send, and tell what was sent."""
    dialect = _dialect(args)
    outer = 6 if ":" in args.to[0] else 4
    payload: bytes = args.payload
    to = _hostport.text_of(args.to)
    added = _added(args, dialect, outer)
    try:
        sender = _Sender(args.to, args.bind)
    except OSError as error:
        where = to if args.bind is None else f"{to} from {_hostport.text_of(args.bind)}"
        raise BackendError(f"send: to {where}: {error.strerror}: check the addresses") from None
    try:
        whole = packet(sender.src, sender.dst, added, payload)
        for _ in range(args.count):
            sender.send(added, payload)
        replies = list(sender.replies(args.count, args.wait))
        sender.look_for_refusal()
    except UOAError as error:
        raise ConfigurationError(f"send: {error}") from None
    except OSError as error:
        raise _explained(error, added, to) from None
    finally:
        sender.close()
    decoded = wire.decode(whole)
    report = {
        "schema": SCHEMA,
        "sent": args.count,
        "from": sender.src,
        "to": sender.dst,
        "dialect": dialect,
        "option": added.option.hex(),
        "opp": added.opp.hex(),
        "header": added.header.hex(),
        "payload_length": len(added.header) + len(payload),
        "packet": whole.hex(),
        "refused": sender.refused,
        "waited": args.wait,
        "replies": [reply.hex() for reply in replies],
    }
    if args.json:
        print(json.dumps(report | {"decoded": facts(decoded)}))
    else:
        _print(report, decoded)
    return 0


# ---- Arguments -----------------------------------------------------------------


def _hex(text: str) -> bytes:
    try:
        return unhex(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _dialect(args: argparse.Namespace) -> str:
    """Return the dialect, and end with a usage error where the arguments do not fit together."""
    dialect: str | None = args.dialect
    if dialect is None:
        if args.option is None and args.header is None and not args.local:
            args.parser.error("--dialect: name one, or give --option, --header or --local")
        dialect = "ppv2" if args.local else NO_DIALECT
    if args.local and dialect not in ("ppv2", NO_DIALECT):
        args.parser.error(f"--local: dialect {dialect} has no such header, ppv2 has")
    is_built = (
        (args.header is None and not args.local)
        if dialect in wire.PAYLOAD_DIALECTS
        else (args.option is None)
    )
    if dialect != NO_DIALECT and is_built and args.client is None:
        args.parser.error(f"--client: dialect {dialect} names one")
    return dialect


def _in_range(least: float, most: float, kind: type[int] | type[float]) -> Any:
    def convert(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not one of {least} to {most}")
        return value

    convert.__name__ = "number"  # argparse: invalid number value
    return convert


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "send",
        help="craft and send datagrams in any dialect, well-formed or not",
        description=__doc__.split("\n")[0],
    )
    parser.add_argument("to", type=_hostport.parse, metavar="HOST:PORT")
    parser.add_argument("--dialect", choices=(NO_DIALECT, *wire.DIALECT_NAMES))
    parser.add_argument(
        "--client", type=_hostport.parse, metavar="HOST:PORT", help="who it shall claim to be from"
    )
    parser.add_argument(
        "--vip", type=_hostport.parse, metavar="HOST:PORT", help="where that client sent it"
    )
    parser.add_argument("--vni", type=_in_range(0, 0xFFFFFFFF, int), default=0, metavar="N")
    payload = parser.add_mutually_exclusive_group()
    payload.add_argument(
        "--payload", type=os.fsencode, default=b"hello", metavar="TEXT", help="default: hello"
    )
    payload.add_argument("--payload-hex", dest="payload", type=_hex, metavar="HEX")
    payload.add_argument(
        "--standalone", dest="payload", action="store_const", const=b"", help="no payload at all"
    )
    parser.add_argument("--count", type=_in_range(1, 1_000_000, int), default=1, metavar="N")
    parser.add_argument(
        "--bind", type=_hostport.parse, metavar="HOST:PORT", help="the address to send from"
    )
    parser.add_argument(
        "--option",
        type=_hex,
        metavar="HEX",
        help="send these bytes as the IPv4 options, the IPv6 Destination Options header "
        "or, with --dialect opp, as that header",
    )
    header = parser.add_mutually_exclusive_group()
    header.add_argument(
        "--header", type=_hex, metavar="HEX", help="send these bytes in front of the payload"
    )
    header.add_argument(
        "--local", action="store_true", help="send the PROXY LOCAL header of a health check"
    )
    parser.add_argument(
        "--wait",
        type=_in_range(0, 3600, float),
        default=0.0,
        metavar="SECONDS",
        help="how long to wait for replies (default: not)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run, parser=parser)
