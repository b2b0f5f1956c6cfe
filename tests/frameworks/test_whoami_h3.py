# SPDX-License-Identifier: MIT
"""examples/python/whoami_h3.py: the page, beside what tests/frameworks/test_examples.py asks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.frameworks.asking import get_page
from tests.frameworks.relay import Relay
from tests.frameworks.test_examples import free_address, running_example
from tests.unit.endpoints import BOB


def test_the_page() -> None:
    """The page has the line, comes whole, is not kept by browsers, and is the only one."""
    at = free_address("127.0.0.1")
    with (
        running_example("whoami_h3", at, "--trust", "127.0.0.1", "--dialect", "ppv2") as server,
        Relay(at) as relay,
    ):
        relay.claim = BOB
        assert get_page(relay.address, "/favicon.ico").status == 404
        answer = get_page(relay.address)
        line = server.line()
    page = answer.body.decode()
    assert f'id="line">{line}<' in page
    assert (b"cache-control", b"no-store") in answer.headers
    # Nothing comes from elsewhere, and no placeholder is left.
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import|\$[a-z]', page)


def test_no_key_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the certificate that it makes are gone when it is ready, and it serves."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    at = free_address("127.0.0.1")
    with running_example("whoami_h3", at, "--trust", "192.0.2.1") as server:
        assert list(tmp_path.iterdir()) == []
        assert get_page(at).status == 200
        server.line()
