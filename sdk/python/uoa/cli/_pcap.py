# SPDX-License-Identifier: MIT
"""Captures: the IP packets of a classic pcap file, one at a time.

Whatever the file claims, a packet takes no more memory than tcpdump's longest
one, and everything that is no capture ends in a ConfigurationError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from uoa._exceptions import ConfigurationError

# The byte order of the writer, by the first bytes: micro- and nanoseconds.
_ORDERS = {
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xa1\xb2\x3c\x4d": ">",
    b"\xd4\xc3\xb2\xa1": "<",
    b"\x4d\x3c\xb2\xa1": "<",
}
_PCAPNG = b"\x0a\x0d\x0d\x0a"
MAGIC_LEN = 4

_MAX_CAPTURED = 262144  # the most that tcpdump and libpcap write

_IP = {0x0800, 0x86DD}
_VLAN = {0x8100, 0x88A8, 0x9100}
# AF_INET, and AF_INET6 of Linux, NetBSD, FreeBSD and macOS: whose file is it?
_IP_FAMILIES = {2, 10, 24, 28, 30}


class Packet(NamedTuple):
    """One record of a capture."""

    number: int
    """Counts from 1."""
    data: bytes
    """From the first byte of the IP header on; may be cut."""
    not_ip: str
    """Why the frame holds no IP packet; empty when it does."""
    captured: int
    """Bytes of the frame that the file holds."""
    length: int
    """Bytes that the frame had."""


def is_capture(magic: bytes) -> bool:
    """Whether a file that begins so is a capture, readable or not."""
    return magic in _ORDERS or magic == _PCAPNG


def _after_ethertype(frame: bytes, at: int) -> tuple[bytes, str]:
    """Return what stands behind the EtherType at `at`, and why that is no IP."""
    while True:
        if len(frame) < at + 2:
            return b"", "the frame is shorter than its link header"
        kind = int.from_bytes(frame[at : at + 2], "big")
        at += 2
        if kind not in _VLAN:
            break
        at += 2
    return frame[at:], "" if kind in _IP else f"EtherType {kind:#06x} is not IP"


def _ethernet(frame: bytes, order: str) -> tuple[bytes, str]:
    return _after_ethertype(frame, 12)


def _raw(frame: bytes, order: str) -> tuple[bytes, str]:
    return frame, ""


def _linux_sll(frame: bytes, order: str) -> tuple[bytes, str]:
    return _after_ethertype(frame, 14)


def _linux_sll2(frame: bytes, order: str) -> tuple[bytes, str]:
    # The EtherType comes first, and a VLAN tag stands where the others have it.
    kind = frame[:2]
    data, not_ip = _after_ethertype(kind + frame[20:], 0)
    return data, "the frame is shorter than its link header" if len(frame) < 20 else not_ip


def _null(frame: bytes, order: str) -> tuple[bytes, str]:
    if len(frame) < 4:
        return b"", "the frame is shorter than its link header"
    family = struct.unpack_from(order + "I", frame)[0]
    return frame[4:], "" if family in _IP_FAMILIES else f"address family {family} is not IP"


def _loop(frame: bytes, order: str) -> tuple[bytes, str]:
    return _null(frame, ">")


_Link = Callable[[bytes, str], tuple[bytes, str]]
_LINKS: dict[int, _Link] = {
    0: _null,
    1: _ethernet,
    12: _raw,  # what some systems wrote before 101 was assigned
    14: _raw,
    101: _raw,
    108: _loop,
    113: _linux_sll,
    228: _raw,
    229: _raw,
    276: _linux_sll2,
}


def read(file: BinaryIO, magic: bytes) -> Iterator[Packet]:
    """Return the packets of a capture whose first bytes, `magic`, are read already.

    Raises:
        ConfigurationError: no classic pcap, or, after the packets before that
            place, the file is cut or damaged.
    """
    if magic == _PCAPNG:
        raise ConfigurationError(
            "this is pcapng, and only classic pcap is read: "
            "editcap -F pcap in.pcapng out.pcap, or tcpdump -r in.pcapng -w out.pcap"
        )
    order = _ORDERS.get(magic)
    if order is None:
        raise ConfigurationError(
            f"no pcap file: it begins with {magic.hex() or 'nothing'}: "
            "give a file of tcpdump -w, or hex digits"
        )
    header = file.read(20)
    if len(header) < 20:
        raise ConfigurationError("the file ends within its header: capture anew")
    major, link_type = struct.unpack(order + "H14xI", header)
    link_type &= 0x03FFFFFF  # above it stands the length of a frame check sequence
    link = _LINKS.get(link_type)
    if major != 2:
        raise ConfigurationError(f"pcap version {major} is not known: this reads version 2")
    if link is None:
        raise ConfigurationError(
            f"link type {link_type} is not read: capture on an Ethernet, loopback or "
            "raw IP interface, or with tcpdump -i any"
        )
    return _records(file, order, link)


def _records(file: BinaryIO, order: str, link: _Link) -> Iterator[Packet]:
    number = 0
    while header := file.read(16):
        number += 1
        cut = ConfigurationError(f"the file ends within record {number}: the capture was cut short")
        if len(header) < 16:
            raise cut
        captured, length = struct.unpack(order + "8xII", header)
        if captured > _MAX_CAPTURED:
            raise ConfigurationError(
                f"record {number} claims {captured} bytes: the file is damaged from there on"
            )
        frame = file.read(captured)
        if len(frame) < captured:
            raise cut
        data, not_ip = link(frame, order)
        yield Packet(number, data, not_ip, captured, length)
