# SPDX-License-Identifier: MIT
"""The blocks of docs/frameworks/aioquic.md run, and its server answers."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.frameworks.quic import ask, client, write_certificate
from tests.interop.programs import PYTHON, running
from tests.senders import udp_socket

_PAGE: Final = Path(__file__).parents[2] / "docs/frameworks/aioquic.md"
_BLOCKS: Final = re.findall(r"^```python\n(.*?)^```$", _PAGE.read_text("utf-8"), re.M | re.S)
_SERVERS: Final = [block for block in _BLOCKS if "serve(" in block]


@pytest.mark.parametrize("block", [block for block in _BLOCKS if block not in _SERVERS])
def test_blocks_run(block: str) -> None:
    """A block without a server runs to its end."""
    subprocess.run([sys.executable, "-W", "error", "-c", block], check=True, timeout=60)


@pytest.mark.parametrize("block", _SERVERS)
def test_servers_answer(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server echoes, and says whose connection it is."""
    write_certificate(tmp_path)
    monkeypatch.chdir(tmp_path)
    with udp_socket("127.0.0.1") as sock:
        port = sock.getsockname()[1]

    async def main() -> None:
        async with client(("127.0.0.1", port), alpn="echo") as connection:
            assert await ask(connection) == b"hello"

    with running(*PYTHON, "-c", block.replace("9999", str(port))) as server:
        asyncio.run(main())
        server.wait_for(r"^client 127\.0\.0\.1 via \('127\.0\.0\.1', \d+\)$")
