# SPDX-License-Identifier: MIT
"""`uoa demo`: as root, as an ordinary user, where namespaces are refused, sabotaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.capability import need

_DEMO = [sys.executable, "-m", "uoa", "demo"]
_REFUSE = [sys.executable, str(Path(__file__).with_name("refuse_unshare.py"))]
# Another number and no capability, but the owner of the same files: an ordinary
# user who can read this checkout wherever it lies.
_ORDINARY = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def _document(*command: str) -> dict[str, Any]:
    result = _run(*command)
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def _check(document: dict[str, Any], degraded: bool) -> None:
    assert set(document) == {"schema", "ok", "degraded", "backend", "scenarios"}
    assert document["schema"] == 1
    assert document["ok"] is True
    assert document["degraded"] is degraded
    assert [s["name"] for s in document["scenarios"]] == ["4to4", "6to6", "nat46", "nat64"]
    for scenario in document["scenarios"]:
        assert set(scenario) == {
            "name", "dialect", "sent", "resolved", "wrong", "replies", "peer", "client", "truth",
        }  # fmt: skip
        assert scenario["sent"] == scenario["resolved"] == scenario["replies"] >= 20
        assert scenario["wrong"] == 0
        assert scenario["client"] == scenario["truth"]
        assert scenario["client"] != scenario["peer"]


def test_all_four_family_pairs() -> None:
    """In a private namespace, every datagram of every family pair names its client."""
    need("netns")
    document = _document(*_DEMO, "--json")

    _check(document, degraded=False)
    assert document["backend"] == "cmsg"
    wires = [":" in s["peer"][0] for s in document["scenarios"]]
    clients = [":" in s["client"][0] for s in document["scenarios"]]
    assert wires == [False, True, True, False]
    assert clients == [False, True, False, True]


def test_an_ordinary_user_can_run_it() -> None:
    """Without any capability the demo works through a user namespace."""
    need("userns")
    assert _run(*_ORDINARY, "id", "-u").stdout == "1000\n"
    assert _run(*_ORDINARY, "unshare", "-n", "true").returncode != 0

    _check(_document(*_ORDINARY, *_DEMO, "--json"), degraded=False)


def test_it_degrades_where_namespaces_are_refused() -> None:
    """Where namespaces are refused the demo uses loopback and PROXY v2, and says so."""
    need("ipv6")
    document = _document(*_REFUSE, *_DEMO, "--json")

    _check(document, degraded=True)
    assert document["backend"] == "proxy"
    assert "refused" in _run(*_REFUSE, *_DEMO).stdout


@pytest.mark.parametrize("prefix", [[], _REFUSE], ids=["private", "degraded"])
def test_sabotage_is_noticed(prefix: list[str]) -> None:
    """When the balancer lies the demo exits 1 and shows both addresses of each wrong line."""
    need("netns")
    result = _run(*prefix, *_DEMO, "--sabotage")

    assert result.returncode == 1
    assert result.stdout.count("WRONG") == 4
    assert "the client's own socket is" in result.stdout


def test_the_sentences_name_both_addresses() -> None:
    """Human output tells, line by line, what the socket saw and who the client is."""
    need("netns")
    result = _run(*_DEMO)

    assert result.returncode == 0
    for name in ("4to4", "6to6", "nat46", "nat64"):
        line = next(line for line in result.stdout.splitlines() if line.startswith(name))
        assert "the socket saw" in line
        assert "the client is" in line
