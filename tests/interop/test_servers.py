# SPDX-License-Identifier: MIT
"""DNS servers that read PROXY v2, behind `uoa lb`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.capability import need
from tests.interop.programs import Program, balancing, dig, running
from tests.senders import Address

# unbound allows loopback clients whatever its access-control says; so clients are not.
_CLIENTS = {4: "203.0.113.7", 6: "2001:db8:c::7"}
_OTHERS = {4: "198.51.100.9", 6: "2001:db8:c::9"}
_VIPS = {4: ("127.0.0.1", 5300), 6: ("::1", 5300)}
_PAIRS = [(4, 4), (6, 6), (4, 6), (6, 4)]

_UNBOUND = """
server:
  interface: 127.0.0.1@5311
  interface: ::1@5311
  proxy-protocol-port: 5311
  do-daemonize: no
  use-syslog: no
  logfile: ""
  log-queries: yes
  log-replies: yes
  username: ""
  chroot: ""
  pidfile: ""
  directory: "{folder}"
  module-config: "iterator"
  access-control: 0.0.0.0/0 refuse
  access-control: ::/0 refuse
  access-control: 203.0.113.7/32 allow
  access-control: 2001:db8:c::7/128 allow
  local-zone: "test." static
  local-data: "a.test. 60 IN TXT hello"
remote-control:
  control-enable: no
"""

_KNOT = """
server:
  listen: [ "127.0.0.1@5330", "::1@5330" ]
  proxy-allowlist: [ "127.0.0.0/8", "::1" ]
  rundir: "{folder}"
database:
  storage: "{folder}"
log:
  - target: stdout
    any: info
zone:
  - domain: whoami.test
    file: "{folder}/zone"
    module: mod-whoami
"""
_ZONE = """
@ 60 SOA ns host 1 3600 900 86400 60
@ 60 NS ns
ns 60 A 192.0.2.1
"""

pytestmark = [
    pytest.mark.netns(*_CLIENTS.values(), *_OTHERS.values()),
    pytest.mark.parametrize(
        ("family", "outer"), _PAIRS, ids=[f"{family}over{outer}" for family, outer in _PAIRS]
    ),
]


def _loopback(family: int, port: int) -> Address:
    return ("127.0.0.1" if family == 4 else "::1"), port


@contextmanager
def _unbound(folder: Path) -> Iterator[Program]:
    need("unbound")
    config = folder / "unbound.conf"
    config.write_text(_UNBOUND.format(folder=folder))
    with running("unbound", "-d", "-p", "-c", str(config), ready="start of service") as program:
        yield program


@contextmanager
def _knot(folder: Path) -> Iterator[Program]:
    need("knotd")
    config = folder / "knot.conf"
    config.write_text(_KNOT.format(folder=folder))
    (folder / "zone").write_text(_ZONE)
    with running("knotd", "-c", str(config), ready="server started") as program:
        yield program


def test_unbound_judges_the_client(family: int, outer: int, tmp_path: Path) -> None:
    """unbound logs the client that `uoa lb` names, and answers or refuses it by its own address."""
    need("dig")
    vip = _VIPS[family]
    with (
        _unbound(tmp_path) as unbound,
        balancing(vip, _loopback(outer, 5311), "ppv2", trail=0),
    ):
        assert dig((_CLIENTS[family], 4001), vip, "a.test.", "TXT") == ("NOERROR", ["hello"])
        assert dig((_OTHERS[family], 4002), vip, "a.test.", "TXT") == ("REFUSED", [])

        assert unbound.wait_for(f" info: {_CLIENTS[family]} a.test. TXT IN NOERROR ")
        assert unbound.wait_for(f" info: {_OTHERS[family]} .* REFUSED ")
        assert not unbound.lines(r" info: (127\.0\.0\.1|::1) ")


def test_knot_answers_the_client(family: int, outer: int, tmp_path: Path) -> None:
    """Knot's mod-whoami answers each client behind `uoa lb` with that client's address."""
    need("dig")
    vip, kind = _VIPS[family], {4: "A", 6: "AAAA"}[family]
    with _knot(tmp_path), balancing(vip, _loopback(outer, 5330), "ppv2", trail=0):
        for _ in range(3):
            for client in (_CLIENTS[family], _OTHERS[family]):
                answer = dig((client, 4001), vip, "whoami.test.", kind)
                assert answer == ("NOERROR", [client])
