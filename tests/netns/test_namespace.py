# SPDX-License-Identifier: MIT
"""The private namespace that the demo and the tests live in."""

from __future__ import annotations

import pytest

from tests.senders import udp_socket
from uoa.cli import _netns

pytestmark = pytest.mark.netns


def test_addresses_work_at_once() -> None:
    """A datagram that is sent right after set_up() arrives, at each of many addresses."""
    hosts = [f"fd00::{number:x}" for number in range(1, 300)]
    _netns.set_up(hosts)
    for host in reversed(hosts):
        with udp_socket(host) as server, udp_socket(host) as client:
            client.connect(server.getsockname())
            client.send(b"data")
            assert server.recv(100) == b"data"
