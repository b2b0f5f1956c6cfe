# SPDX-License-Identifier: MIT
"""Servers out of the frameworks' own documentation see clients when one import changes.

The texts are those of the installed releases: dnslib has its examples as modules, and
Starlette's and hypercorn's are in the description of the package. Those of asyncio and
socketserver are in tests/unit, that of aioquic in tests/interop.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from importlib.metadata import metadata
from pathlib import Path
from typing import Final

import dnslib.fixedresolver
import pytest
from dnslib import DNSRecord

from tests.capability import need
from tests.docs import ask
from tests.frameworks import quic
from tests.frameworks.asking import get_page
from tests.frameworks.relay import Relay
from tests.interop.programs import PYTHON, running
from tests.senders import udp_socket
from tests.unit.endpoints import ALICE, TRUST

# In Markdown, and in reStructuredText.
_CODE: Final = re.compile(
    r"^```python.*\n((?:(?!```).*\n)*)```|^\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)",
    re.MULTILINE,
)


@pytest.fixture(autouse=True)
def _trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers trust the balancer, without a word in their code."""
    need("raw")
    monkeypatch.setenv("UOA_TRUST", TRUST)


def _change(text: str, old: str, new: str) -> str:
    """Replace a line that is there once."""
    assert text.count(old) == 1, text
    return text.replace(old, new)


def _documented(package: str, mark: str) -> str:
    """Return the first block of code in a package's description that contains `mark`."""
    blocks = _CODE.findall(metadata(package)["Description"])
    return next(textwrap.dedent("".join(found)) for found in blocks if mark in "".join(found))


def test_the_fixed_resolver_of_dnslib() -> None:
    """It answers through the balancer, and its log names the client."""
    text = _change(
        inspect.getsource(dnslib.fixedresolver),
        "from dnslib.server import DNSServer,DNSHandler,BaseResolver,DNSLogger\n",
        "from dnslib.server import BaseResolver, DNSLogger\n"
        "from uoa.dnslib import DNSServer, DNSHandler\n",
    )
    with udp_socket("127.0.0.1") as free:
        at = free.getsockname()
    with (
        running(*PYTHON, "-u", "-c", text, "--port", str(at[1])) as server,
        Relay(at, "ipo") as relay,
    ):
        relay.claim = ALICE
        answer = DNSRecord.parse(ask(relay.address, DNSRecord.question("any.").pack()))
        assert str(answer.rr[0].rdata) == "127.0.0.1"
        server.wait_for(r"Reply: \[203\.0\.113\.7:5000\]")


def test_the_first_page_of_starlette_on_hypercorn(tmp_path: Path) -> None:
    """It is served by HTTP/3, and hypercorn's access log names the client."""
    (tmp_path / "module.py").write_text(_documented("starlette", "routes = ["), "utf-8")
    certificate, key = quic.write_certificate(tmp_path)
    with udp_socket("127.0.0.1") as free:
        at = free.getsockname()
    text = _change(
        _documented("hypercorn", "import serve"),
        "from hypercorn.asyncio import serve",
        "from uoa.hypercorn import serve",
    )
    # Without a certificate there is no QUIC, and by default no log of requests.
    options = {
        "quic_bind": [f"127.0.0.1:{at[1]}"],
        "bind": [],
        "certfile": str(certificate),
        "keyfile": str(key),
        "accesslog": "-",
    }
    text = _change(text, "Config()", f"Config.from_mapping({options!r})")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(tmp_path)
        with running(*PYTHON, "-c", text) as server, Relay(at, "ipo") as relay:
            relay.claim = ALICE
            assert get_page(relay.address).json == {"hello": "world"}
            server.wait_for(r"203\.0\.113\.7:5000 .*GET / 3.* 200")
