# SPDX-License-Identifier: MIT
"""Chromium, headless, on the page of examples/python/whoami_h3.py.

    Chromium ──HTTP/3──► uoa lb ──option or PROXY v2──► whoami_h3.py

There is no TCP listener on any of these ports, and so nothing that a browser could fall
back to. Its exit status is 0 whatever happens: what counts is the page and the server's log.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives import serialization

from tests.capability import need
from tests.frameworks import quic
from tests.frameworks.quic import NAME
from tests.interop.programs import PYTHON, Program, balancing, running
from tests.senders import Address
from uoa.cli._hostport import text_of

_ROOT: Final = Path(__file__).parents[2]
_SIZE: Final = (1000, 640)
_PATIENCE: Final = 60  # seconds, for what takes one

_CLIENTS = {4: "203.0.113.7", 6: "2001:db8:c::7"}
_VIPS = {4: ("198.51.100.10", 443), 6: ("2001:db8:f::10", 443)}
_SERVERS = {4: ("10.0.1.9", 4433), 6: ("2001:db8:b::9", 4433)}

pytestmark = pytest.mark.netns(
    *_CLIENTS.values(), *(host for host, _ in (*_VIPS.values(), *_SERVERS.values()))
)


@contextmanager
def _serving(listen: Address, folder: Path, *arguments: str) -> Iterator[Program]:
    """Run the example."""
    certificate, key = quic.write_certificate(folder)
    with running(
        *PYTHON, str(_ROOT / "examples/python/whoami_h3.py"), "--listen", text_of(listen),
        "--certificate", str(certificate), "--key", str(key), *arguments, ready="^ready$",
    ) as server:  # fmt: skip
        yield server


def _leave_from(client: str, vip: Address) -> None:
    """Let what is sent to the VIP come from the client's address, as the browser binds none."""
    need("ip")
    route = ("local", vip[0], "dev", "lo", "table", "local")
    for change in (("del", *route), ("add", *route, "src", client)):
        subprocess.run(["ip", "-6" if ":" in client else "-4", "route", *change], check=True)


def _pin() -> str:
    """Return the hash of the certificate's key, by which QUIC accepts it."""
    key = quic.certificate()[0].public_key()
    encoded = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(encoded).digest()).decode()


def _open_page(vip: Address, folder: Path) -> tuple[str, Path]:
    """Open https://NAME/ in Chromium; return the page as it ended, and a picture of it."""
    picture = folder / "page.png"
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder / 'profile'}",
        f"--origin-to-force-quic-on={NAME}:443",
        f"--host-resolver-rules=MAP {NAME} {text_of((vip[0], 0)).removesuffix(':0')}",
        f"--ignore-certificate-errors-spki-list={_pin()}",
        "--dump-dom", f"--screenshot={picture}", "--window-size={},{}".format(*_SIZE),
        f"https://{NAME}:443/",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    return result.stdout, picture


def _text(page: str, element: str) -> str:
    found = re.search(rf'id="{element}">([^<]*)<', page)
    assert found is not None, f"no {element} in the page: {page}"
    return found[1]


def _assert_picture(picture: Path) -> None:
    """Find a PNG of the size that was asked for, with more than one colour in it."""
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack_from(">II", data, 16) == _SIZE
    assert len(data) > 10_000


@pytest.mark.parametrize(
    ("dialect", "family", "outer"),
    [("ipo", 4, 4), ("ppv2", 4, 4), ("ipo", 6, 6), ("ipo", 4, 6), ("ipo", 6, 4)],
    ids=["ipo", "ppv2", "ipo-6", "ipo-4over6", "ipo-6over4"],
)
def test_the_page_shows_the_visitor(dialect: str, family: int, outer: int, tmp_path: Path) -> None:
    """Chromium loads the page over HTTP/3, and reads its own address and the balancer's there."""
    need("chromium")
    client, vip, server_at = _CLIENTS[family], _VIPS[family], _SERVERS[outer]
    _leave_from(client, vip)
    with (
        _serving(server_at, tmp_path, "--trust", server_at[0], "--dialect", dialect) as server,
        balancing(vip, server_at, dialect, trail=0 if dialect == "ppv2" else 3),
    ):
        page, picture = _open_page(vip, tmp_path)
        [line] = server.wait_for("^client ")
        assert server.lines("^GET / ") == ["GET / over HTTP/3"]
    source = "proxy" if dialect == "ppv2" else "cmsg"
    host, balancer = re.escape(text_of((client, 0))[:-2]), re.escape(text_of(server_at)[:-5])
    assert re.fullmatch(rf"client {host}:\d+ via {balancer}:\d+ source={source}", line)

    _, address, _, peer, _ = line.split()
    assert _text(page, "line") == line
    assert _text(page, "host") == client
    assert address.endswith(f":{_text(page, 'port')}")
    assert _text(page, "balancer") == peer
    assert _text(page, "server") == text_of(server_at)
    assert _text(page, "protocol").endswith(" h3")
    assert f'<body class="{source}">' in page

    _assert_picture(picture)
    if dialect == "ipo" and outer == family:
        kept = _ROOT / "build/tests"
        kept.mkdir(parents=True, exist_ok=True)
        name = "whoami_h3.png" if family == 4 else "whoami_h3_ipv6.png"
        (kept / name).write_bytes(picture.read_bytes())


@pytest.mark.parametrize(("trust", "source"), [("192.0.2.1", "direct"), ("10.0.1.9", "none")])
def test_the_page_does_not_pretend(trust: str, source: str, tmp_path: Path) -> None:
    """A direct visitor is told so; one whom a balancer does not name is told that, too."""
    need("chromium")
    at = (_SERVERS[4][0], 443)
    with _serving(at, tmp_path, "--trust", trust) as server:
        page, picture = _open_page(at, tmp_path)
        [line] = server.wait_for("^client ")
    assert line.endswith(f" source={source}")
    assert _text(page, "line") == line
    assert f'<body class="{source}">' in page
    _assert_picture(picture)
