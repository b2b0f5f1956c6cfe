# SPDX-License-Identifier: MIT
"""Talk to the packet harnesses: the line protocol of lines.h, from the Python side."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.reference.decoder import address_text

VECTORS: Final = Path(__file__).parents[1] / "vectors"
OPTION_SUITES: Final = ("ipo-ipv4", "ipo-ipv6", "opp", "bytedance")
PACKET_SUITES: Final = (*OPTION_SUITES, "ppv2", "spp")
SOCKOPT_SUITES: Final = ("sockopt", "sockopt-2051")

# The switches of wire.h, by the names of the vectors.
SWITCHES: Final = {"ipo": 1, "opp": 2, "bd": 4, "ppv2": 8, "spp": 16}
OPTION_DIALECTS: Final = frozenset({"ipo", "opp", "bd"})

REASONS: Final = (
    "absent",
    "malformed",
    "truncated",
    "not_ip",
    "not_udp",
    "fragment",
    "unsupported",
    "local",
    "checksum",
    "invalid_addr",
    "conflict",
    "untrusted",
)
DIALECTS: Final = ("ipo", "opp", "bd31", "bd30", "bd29", "ppv2", "spp")
DIALECT_NUMBERS: Final = {name: number for number, name in enumerate(DIALECTS, 1)}

MAPPED: Final = bytes(10) + b"\xff\xff"

# Any finding of a sanitizer ends the program with this status.
SANITIZER_OPTIONS: Final = {
    "ASAN_OPTIONS": "exitcode=66:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}

Vector = dict[str, Any]


class HarnessError(Exception):
    """A harness died, or answered fewer lines than it was asked; the message is its stderr."""


class Outcome(NamedTuple):
    """One answer: the fields of lines.h in their order, as the text they came as."""

    reason: str
    rule: str
    version: str
    src: str
    sport: str
    dst: str
    dport: str
    dialect: str
    client_family: str
    client: str
    client_port: str
    vip_family: str
    vip: str
    vip_port: str
    vni: str
    strip: str
    stripped: str

    def expect(self) -> dict[str, object]:
        """Return the `expect` object of a packet vector."""
        result: dict[str, object]
        if self.reason == "found":
            result = {
                "found": True,
                "real_addr": host(self.client, self.client_family),
                "real_port": int(self.client_port),
                "dialect": self.dialect,
                "outer_src": host(self.src, self.version),
                "outer_sport": int(self.sport),
                "outer_dst": host(self.dst, self.version),
                "outer_dport": int(self.dport),
            }
            if self.vip_family != "0":
                result["vip_addr"] = host(self.vip, self.vip_family)
                result["vip_port"] = int(self.vip_port)
            if self.dialect == "bd29":
                result["vni"] = int(self.vni)
            if self.dialect in ("ppv2", "spp"):
                result["payload_strip"] = int(self.strip)
        else:
            result = {"found": False, "reason": self.reason}
        if self.stripped != "-":
            result["stripped"] = None if self.stripped == "keep" else self.stripped
        return result


def host(address: str, family: str) -> str:
    """Return an address of the harness in the text form of the vectors."""
    packed = bytes.fromhex(address)
    return address_text(packed[12:] if family == "4" else packed)


def address16(text: str) -> bytes:
    """Return 16 bytes, IPv4 as mapped."""
    packed = ipaddress.ip_address(text).packed
    return MAPPED + packed if len(packed) == 4 else packed


def canonical(expect: dict[str, Any]) -> dict[str, Any]:
    """Return an `expect` object with its addresses in one text form: they compare as bytes."""
    return {
        key: address_text(ipaddress.ip_address(value).packed)
        if key in ("real_addr", "vip_addr", "outer_src", "outer_dst")
        else value
        for key, value in expect.items()
    }


def request(packet: bytes, dialects: Iterable[str], trusted: Sequence[str] | None) -> str:
    """Return the line that asks about a packet."""
    switches = sum(SWITCHES[name] for name in set(dialects))
    trust = "*" if trusted is None else ",".join(trusted) or "-"
    return f"{switches:x} {trust} {packet.hex() or '-'}"


def request_of(vector: Vector) -> str:
    """Return the line that asks about the packet of a vector."""
    config = vector["config"]
    return request(bytes.fromhex(vector["packet"]), config["dialects"], config.get("trusted"))


def load(suites: Iterable[str]) -> list[Vector]:
    """Return the vectors of some suites, each with its suite in front of its name."""
    found: list[Vector] = []
    for suite in suites:
        document = json.loads((VECTORS / f"{suite}.json").read_text(encoding="ascii"))
        found += [{**vector, "name": f"{suite}/{vector['name']}"} for vector in document["vectors"]]
    return found


def run(program: Path, lines: Sequence[str], *arguments: str) -> list[str]:
    """Start a harness, give it all lines at once, and return the lines it prints.

    Raises:
        HarnessError: it did not end well.
    """
    result = subprocess.run(
        [program, *arguments],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        encoding="utf-8",
        env=os.environ | SANITIZER_OPTIONS,
    )
    answers = result.stdout.splitlines()
    if result.returncode:
        last = lines[len(answers)] if len(answers) < len(lines) else ""
        raise HarnessError(f"status {result.returncode} after {last!r}\n{result.stderr}")
    return answers


def ask(program: Path, lines: Sequence[str]) -> list[str]:
    """Return the answer of a harness to each line.

    Raises:
        HarnessError: it did not end well, or did not answer each line.
    """
    answers = run(program, lines)
    if len(answers) != len(lines):
        raise HarnessError(f"{len(answers)} answers to {len(lines)} lines")
    return answers


def outcome(answer: str) -> Outcome:
    """Read one answer."""
    return Outcome(*answer.split(" "))


def decode(program: Path, lines: Sequence[str]) -> list[Outcome]:
    """Return what a packet harness makes of each line."""
    return [outcome(answer) for answer in ask(program, lines)]


class Conversation:
    """A harness that is kept running and asked line by line; a context manager."""

    def __init__(self, program: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            bufsize=1,
            env=os.environ | SANITIZER_OPTIONS,
        )

    def ask(self, line: str) -> str:
        """Ask one line and wait for its answer.

        Raises:
            HarnessError: there is no answer.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise HarnessError(f"status {self._process.wait()} after {line!r}")
        return answer.rstrip("\n")

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._process.communicate()
        if self._process.returncode and kind is None:
            raise HarnessError(f"status {self._process.returncode} at the end")
