# SPDX-License-Identifier: MIT
"""`uoa decode`: what the parser makes of a packet, and the rule that decided.

The rules are those of docs/wire-format.md. One packet is shown in full, several
(of a capture) as a table with a line for each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import Counter
from dataclasses import replace
from itertools import chain, islice, starmap
from typing import TYPE_CHECKING, Any, BinaryIO

from uoa import wire
from uoa._exceptions import ConfigurationError, UOAError
from uoa.cli import _pcap, _table
from uoa.cli._hostport import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SCHEMA = 1

_MAX_HEX = 1 << 20  # characters: far more than the longest packet needs
_COLUMNS = (
    ("number", 6),
    ("verdict", 12),
    ("dialect", 7),
    ("client", 21),
    ("outer", 46),
    ("rule", 0),
)


# ---- What goes in --------------------------------------------------------------


def unhex(text: str) -> bytes:
    """Return the bytes of hex digits, with white space and colons, or as tcpdump -x prints them.

    Raises:
        ConfigurationError: it is something else.
    """
    digits = re.sub(r"(?m)^\s*0x[0-9a-fA-F]+:", "", text)
    digits = re.sub(r"[\s:]", "", digits)
    try:
        return bytes.fromhex(digits)
    except ValueError:
        is_hex = re.fullmatch("[0-9a-fA-F]*", digits) is not None
        why = "an odd number of hex digits" if is_hex else "more than hex digits and colons"
        raise ConfigurationError(why) from None


def _hex_packet(data: bytes) -> Iterator[_pcap.Packet]:
    yield _pcap.Packet(1, data, "", len(data), len(data))


def _stdin(file: BinaryIO) -> Iterator[_pcap.Packet]:
    """Hex digits or a capture: its first bytes tell."""
    magic = file.read(_pcap.MAGIC_LEN)
    if _pcap.is_capture(magic):
        return _pcap.read(file, magic)
    text = magic + file.read(_MAX_HEX + 1)
    if len(text) > _MAX_HEX:
        raise ConfigurationError(f"more than {_MAX_HEX} characters: no packet is that long")
    return _hex_packet(unhex(text.decode(errors="replace")))


def _packets(source: str) -> Iterator[_pcap.Packet]:
    """Find out what `source` is, and read it packet by packet."""
    if source == "-":
        yield from _stdin(sys.stdin.buffer)
    elif os.path.exists(source):
        try:
            with open(source, "rb") as file:
                yield from _pcap.read(file, file.read(_pcap.MAGIC_LEN))
        except OSError as error:
            raise ConfigurationError(f"{error.strerror}: give a readable pcap file") from None
    else:
        try:
            yield from _hex_packet(unhex(source))
        except ConfigurationError as error:
            raise ConfigurationError(f"no such file, and no packet in hex: {error}") from None


# ---- What comes out ------------------------------------------------------------


def _judge(packet: _pcap.Packet, dialects: str | Iterable[str], trust: str | None) -> wire.Decoded:
    if packet.not_ip:
        return wire.Decoded("not_ip", "link layer", packet.not_ip, None, 0, None, 0)
    decoded = wire.decode(packet.data, dialects, trust)
    if decoded.reason == "truncated" and packet.captured < packet.length:
        hint = f" (captured {packet.captured} of {packet.length} bytes: tcpdump -s 0)"
        return replace(decoded, rule_text=decoded.rule_text + hint)
    return decoded


def _outer(decoded: wire.Decoded) -> str:
    if decoded.outer_src is None or decoded.outer_dst is None:
        return ""
    source = text_of((decoded.outer_src, decoded.outer_sport))
    return f"{source} -> {text_of((decoded.outer_dst, decoded.outer_dport))}"


def lines(decoded: wire.Decoded) -> Iterator[str]:
    """Return the lines that tell of one packet."""
    if decoded.outer_src is not None:
        yield f"outer    {_outer(decoded)}"
        strip = f", {decoded.payload_strip} of them a header" if decoded.payload_strip else ""
        yield f"payload  {len(decoded.payload)} bytes{strip}"
    if decoded.stripped is not None:
        yield f"opp      header taken out: {len(decoded.stripped)} bytes are handed on"
    elif decoded.reached_opp:
        yield "opp      header stays: the packet must be left alone"
    if decoded.client is not None:
        yield f"dialect  {decoded.dialect}"
        yield f"client   {text_of(decoded.client)}"
    if decoded.vip is not None:
        yield f"vip      {text_of(decoded.vip)}"
    if decoded.vni is not None:
        yield f"vni      {decoded.vni}"
    yield f"verdict  {decoded.reason}"
    yield f"rule     {decoded.rule}: {decoded.rule_text}"


def facts(decoded: wire.Decoded) -> dict[str, Any]:
    """Return what JSON output tells of one packet; what is not known is null."""
    udp = decoded if decoded.outer_src is not None else None
    return {
        "reason": decoded.reason,
        "rule": decoded.rule,
        "rule_text": decoded.rule_text,
        "outer_src": udp and udp.outer_src,
        "outer_sport": udp and udp.outer_sport,
        "outer_dst": udp and udp.outer_dst,
        "outer_dport": udp and udp.outer_dport,
        "payload_length": udp and len(udp.payload),
        "payload_strip": udp and udp.payload_strip,
        "expect": decoded.as_dict(),
    }


def _document(packet: _pcap.Packet, decoded: wire.Decoded) -> str:
    about = {"number": packet.number, "captured": packet.captured, "length": packet.length}
    return json.dumps(about | facts(decoded))


def _row(packet: _pcap.Packet, decoded: wire.Decoded) -> tuple[str, ...]:
    return (
        str(packet.number),
        decoded.reason,
        decoded.dialect or "",
        "" if decoded.client is None else text_of(decoded.client),
        _outer(decoded),
        f"{decoded.rule}: {decoded.rule_text}",
    )


class _Report:
    """Judges packets as they are read, counts the outcomes and keeps the error that ends it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.reasons: Counter[str] = Counter()
        self.error: UOAError | None = None
        self._input: str = args.input
        self._dialects = args.dialects or wire.SWITCHES
        trust = ",".join(args.trust or ["*"])
        self._trust = None if _is_everybody(trust) else trust

    def judged(self) -> Iterator[tuple[_pcap.Packet, wire.Decoded]]:
        """Judge as many packets as can be read."""
        try:
            for packet in _packets(self._input):
                decoded = _judge(packet, self._dialects, self._trust)
                self.reasons[decoded.reason] += 1
                yield packet, decoded
        except UOAError as error:
            source = self._input if len(self._input) <= 60 else self._input[:57] + "..."
            self.error = ConfigurationError(f"decode: {source!r}: {error}")

    def as_json(self) -> None:
        """Print one document, a packet at a time: captures may be long."""
        judged = self.judged()
        first = list(islice(judged, 1))
        if self.error is not None and not first:
            return
        print(f'{{"schema": {SCHEMA}, "packets": [', end="")
        separator = "\n"
        for one in chain(first, judged):
            print(separator, _document(*one), sep="", end="")
            separator = ",\n"
        error = None if self.error is None else str(self.error)
        print(f'\n], "reasons": {json.dumps(self.reasons)}, "error": {json.dumps(error)}}}')

    def as_text(self) -> None:
        """Print one packet in full, or several as a table."""
        judged = self.judged()
        first = list(islice(judged, 2))
        if len(first) == 1:
            print(*lines(first[0][1]), sep="\n")
        elif first:
            _table.print_rows(
                _COLUMNS, starmap(_row, chain(first, judged)), live=self._input == "-"
            )
            counts = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
            print(f"{self.reasons.total()} packets: {counts}")
        elif self.error is None:
            print("0 packets")


def run(args: argparse.Namespace) -> int:
    """Judge what is given; 1 when it cannot be read to its end."""
    report = _Report(args)
    if args.json:
        report.as_json()
    else:
        report.as_text()
    if report.error is not None:
        sys.stdout.flush()
        raise report.error
    return 0


def _is_everybody(trust: str) -> bool:
    return "*" in trust.split(",")


def _checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """Make usage errors of what libuoa refuses; for argparse's `type=`."""

    def convert(text: str) -> str:
        try:
            check(text)
        except UOAError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return convert


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "decode",
        help="what the parser makes of a packet, and why",
        description=__doc__.split("\n")[0],
    )
    parser.add_argument(
        "input",
        metavar="HEX|FILE.pcap",
        help="a packet from its IP header on, in hex; a capture; or - for either on stdin",
    )
    parser.add_argument(
        "--dialects",
        type=_checked(lambda text: wire.decode(b"", text)),
        metavar="LIST",
        help=f"what to look for (default {','.join(wire.SWITCHES)})",
    )
    parser.add_argument(
        "--trust",
        type=_checked(lambda text: _is_everybody(text) or wire.decode(b"", trusted=text)),
        action="append",
        metavar="CIDR,...",
        help="the senders to believe; may be repeated (default: everybody)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)
