# SPDX-License-Identifier: MIT
"""The server of docs/frameworks/asgi.md, as it stands there, and the example's answers."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from pathlib import Path

from tests.capability import need
from tests.frameworks.h3 import certificate, client
from tests.frameworks.relay import Relay
from tests.unit.endpoints import ALICE, BOB, PATIENCE

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs/frameworks/asgi.md"


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_the_page() -> None:
    """The first block of the guide serves HTTP/3 and greets a client by its address."""
    need("raw")
    found = re.search(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    port = _free_port()
    text = found[1].replace("0.0.0.0:9999", f"127.0.0.1:{port}")
    text = text.replace("10.0.0.0/24", "127.0.0.1")
    text = text.replace('"cert.pem"', repr(str(certificate())))
    text = text.replace('"key.pem"', repr(str(certificate().with_name("key.pem"))))

    async def main() -> None:
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", text,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert server.stderr is not None
        try:
            async with asyncio.timeout(PATIENCE):
                while b"(QUIC)" not in (line := await server.stderr.readline()):
                    assert line.startswith(b"["), line + await server.stderr.read()
                with Relay(("127.0.0.1", port), "ipo") as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        assert (await connection.request()).body == b"hello 203.0.113.7"
        finally:
            server.terminate()
            await server.wait()

    asyncio.run(main())


def test_the_example() -> None:
    """whoami_h3.py makes its own certificate, prints one line a page, and escapes what it shows."""
    port = _free_port()
    command = [
        sys.executable, "-W", "error", str(_ROOT / "examples/python/whoami_h3.py"),
        "--listen", f"127.0.0.1:{port}", "--trust", "127.0.0.1", "--dialect", "ppv2",
    ]  # fmt: skip

    async def main() -> None:
        server = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert server.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                assert await server.stdout.readline() == b"ready\n"
                with Relay(("127.0.0.1", port)) as relay:
                    relay.claim = BOB
                    async with client(relay.address) as connection:
                        assert (await connection.request("/favicon.ico")).status == 404
                        answer = await connection.request()
                        [(host, peer_port)] = relay.peers()
                line = (await server.stdout.readline()).decode().rstrip("\n")
            assert line == f"client [2001:db8::8]:5000 via {host}:{peer_port} source=proxy"
            page = answer.body.decode()
            assert f'id="line">{line}<' in page
            assert (b"cache-control", b"no-store") in answer.headers
            # Nothing comes from elsewhere, and no placeholder is left.
            assert not re.search(r'(src|href)="(?!data:)|url\(|@import|\$[a-z]', page)
        finally:
            server.terminate()
            rest, _ = await server.communicate()
        assert rest == b""

    asyncio.run(main())
