# SPDX-License-Identifier: MIT
"""A private network namespace for this process, without any program to help."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
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

    Raises:
        OSError: not allowed, or the kernel has no IPv6.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        up = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, _LOOPBACK, _IFF_UP, _IFF_UP)
        _request(netlink, _RTM_NEWLINK, up)
        for host in hosts:
            packed, _ = pack_host(host)
            family, length = socket.AF_INET6, 128
            if packed.startswith(MAPPED):
                family, length, packed = socket.AF_INET, 32, packed[12:]
            header = struct.pack("=BBBBi", family, length, _IFA_F_NODAD, 0, _LOOPBACK)
            address = _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
            _request(netlink, _RTM_NEWADDR, header + address)
