# SPDX-License-Identifier: MIT
"""aioquic's example client, which fetches a page over HTTP/3 through `uoa lb`.

The server is one of ours, or aioquic's own example with one import changed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.capability import need
from tests.frameworks.quic import write_certificate
from tests.interop import aioquic_examples
from tests.interop.programs import PATIENCE, PYTHON, balancing, running
from tests.senders import Address
from uoa.cli._hostport import text_of

_VIPS = {4: "203.0.113.80", 6: "2001:db8:f::80"}
_SERVERS = {4: "127.0.0.1", 6: "::1"}


@pytest.fixture(scope="module")
def examples() -> Path:
    """Return where they are; they are fetched where there is a network: outside of the test."""
    need("aioquic-examples")
    return aioquic_examples.folder()


def _fetch(examples: Path, client: Address, vip: Address, folder: Path) -> tuple[str, str]:
    """Fetch a page, from an address that is given down to its port; return it, and the log."""
    result = subprocess.run(
        [
            sys.executable, str(examples / "http3_client.py"), "--insecure",
            "--local-port", str(client[1]), "--output-dir", str(folder),
            f"https://{text_of(vip)}/who",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    print(result.stderr)
    return (folder / "who").read_text(encoding="ascii"), result.stderr


@pytest.mark.netns(*_VIPS.values())
@pytest.mark.parametrize(("dialect", "source"), [("ipo", "cmsg"), ("ppv2", "proxy")])
@pytest.mark.parametrize(
    ("outer", "family"), [(4, 4), (6, 6), (6, 4), (4, 6)], ids=["4to4", "6to6", "nat46", "nat64"]
)
def test_a_page_says_who_asked(
    dialect: str, source: str, outer: int, family: int, examples: Path, tmp_path: Path
) -> None:
    """The page names the client, down to its port, the balancer, and how it is known."""
    # Who talks to an address of the machine itself does so from that address.
    vip, client = (_VIPS[family], 443), (_VIPS[family], 5555)
    listen: Address = (_SERVERS[outer], 4433)
    certificate, key = write_certificate(tmp_path)
    with (
        running(
            *PYTHON, "-m", "tests.interop.whoami_quic", "--listen", text_of(listen),
            "--trust", "127.0.0.1,::1", "--dialect", dialect,
            "--certificate", str(certificate), "--key", str(key),
            ready="^ready$",
        ) as server,
        balancing(vip, listen, dialect, 3 if dialect == "ipo" else 0),
    ):  # fmt: skip
        page, log = _fetch(examples, client, vip, tmp_path)
        (line,) = server.wait_for("^client ")

    assert page == line
    words = line.split()
    assert words[:3] == ["client", text_of(client), "via"]
    assert words[3].startswith(text_of((_SERVERS[outer], 0))[:-1])
    assert words[4] == f"source={source}"
    assert "ALPN negotiated protocol h3" in log


@pytest.mark.netns(*_VIPS.values())
@pytest.mark.parametrize("family", [4, 6])
def test_the_example_server_of_aioquic(
    family: int, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `serve` imported from uoa.aioquic, its application knows the client."""
    monkeypatch.setenv("UOA_TRUST", "127.0.0.1,::1")
    vip, client = (_VIPS[family], 443), (_VIPS[family], 5555)
    listen: Address = (_SERVERS[family], 4433)
    certificate, key = write_certificate(tmp_path)
    text = (examples / "http3_server.py").read_text(encoding="utf-8")
    old = "from aioquic.asyncio import QuicConnectionProtocol, serve\n"
    assert text.count(old) == 1
    program = tmp_path / "http3_server.py"
    new = "from aioquic.asyncio import QuicConnectionProtocol\nfrom uoa.aioquic import serve\n"
    program.write_text(text.replace(old, new), encoding="utf-8")
    with (
        running(
            *PYTHON, str(program), "--host", listen[0], "--port", str(listen[1]),
            "--certificate", str(certificate), "--private-key", str(key),
            "tests.interop.told_by_current:app",
        ),
        # On every datagram: nothing says when the server has begun to listen.
        balancing(vip, listen, "ipo", 0),
    ):  # fmt: skip
        page, _ = _fetch(examples, client, vip, tmp_path)

    assert page == f"{text_of(client)} source=cmsg"
