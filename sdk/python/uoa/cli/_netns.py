# SPDX-License-Identifier: MIT
"""A private network namespace for this process, without any program to help."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from uoa._address import MAPPED, pack_host

if TYPE_CHECKING:
    from collections.abc import Iterable

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_LOOPBACK = 1  # the interface's number in every network namespace

# linux/rtnetlink.h, linux/if_addr.h
_RTM_NEWLINK, _RTM_NEWADDR = 16, 20
_REQUEST_CREATE_ACK = 0x1 | 0x400 | 0x4
_IFF_UP = 1
_IFA_F_NODAD = 2
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTF_LOCAL = 0x80000000  # linux/ipv6_route.h

_PATIENCE = 10.0  # seconds, for what takes milliseconds


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, f"network namespace: {os.strerror(number)}")


def enter() -> None:
    """Move this process into a new network namespace.

    Raises:
        OSError: neither root's right nor a user namespace is to be had.
    """
    try:
        _unshare(_CLONE_NEWNET)
    except PermissionError:
        uid, gid = os.getuid(), os.getgid()
        _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        # Root inside, so that programs started here keep their capabilities.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _request(netlink: socket.socket, kind: int, body: bytes) -> None:
    """Send one rtnetlink request and wait for the kernel's answer."""
    netlink.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_CREATE_ACK, 1, 0) + body)
    error: int = -struct.unpack_from("=i", netlink.recv(4096), 16)[0]
    if error:
        raise OSError(error, f"network namespace: {os.strerror(error)}")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value


def set_up(hosts: Iterable[str]) -> None:
    """Bring the loopback interface up and give it these addresses.

    Returns once datagrams to them arrive: the kernel's routes to its own IPv6
    addresses come a little after the addresses.

    Raises:
        OSError: not allowed, or the kernel has no IPv6.
    """
    ours = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        up = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, _LOOPBACK, _IFF_UP, _IFF_UP)
        _request(netlink, _RTM_NEWLINK, up)
        for host in hosts:
            packed, _ = pack_host(host)
            family, length = socket.AF_INET6, 128
            if packed.startswith(MAPPED):
                family, length, packed = socket.AF_INET, 32, packed[12:]
            else:
                ours.add(packed.hex())
            header = struct.pack("=BBBBi", family, length, _IFA_F_NODAD, 0, _LOOPBACK)
            address = _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
            _request(netlink, _RTM_NEWADDR, header + address)
    end = time.monotonic() + _PATIENCE
    while not ours <= _local_routes():
        if time.monotonic() > end:
            raise OSError(errno.ETIMEDOUT, "network namespace: no route to its own addresses")
        time.sleep(0.001)


def _local_routes() -> set[str]:
    """Return the IPv6 addresses that are this host's for its routes, in hex."""
    try:
        table = Path("/proc/net/ipv6_route").read_text(encoding="ascii")
    except FileNotFoundError:
        return set()  # No IPv6, and then no such address either.
    routes = (line.split() for line in table.splitlines())
    return {route[0] for route in routes if int(route[8], 16) & _RTF_LOCAL}
