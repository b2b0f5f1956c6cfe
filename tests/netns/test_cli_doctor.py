# SPDX-License-Identifier: MIT
"""`uoa doctor`: what it finds on machines that can do everything, and on others.

Each test makes its machine in a network namespace of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.capability import need
from tests.sockopt.kernel_table import KernelTable

pytestmark = pytest.mark.netns()

_DROP_RAW = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 13); os.execv(sys.argv[1], sys.argv[1:])"
)


def _doctor(
    *arguments: str, before: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-W", "error", "-m", "uoa", "doctor", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )


def _found(**arguments: Any) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """Return the findings by backend and part, and the whole document."""
    result = _doctor("--json", **arguments)
    document = json.loads(result.stdout)
    assert result.stderr == ""
    assert document["schema"] == 1
    assert result.returncode == (0 if document["ok"] else 1)
    return {(f["backend"], f["part"]): f for f in document["backends"]}, document


def test_a_whole_machine() -> None:
    """Options and headers of both families are really received, and the kernel has no table."""
    need("raw")
    findings, document = _found()

    assert {key: finding["works"] for key, finding in findings.items()} == {
        ("cmsg", "IPv4 options"): True,
        ("cmsg", "IPv6 options"): True,
        ("proxy", "ppv2"): True,
        ("proxy", "spp"): True,
        ("sockopt", "getsockopt()"): False,
    }
    assert "claim arrived" in findings["cmsg", "IPv6 options"]["found"]
    assert "load a module" in findings["sockopt", "getsockopt()"]["todo"]
    assert document["environment"]["auto"] == {"endpoint": "cmsg", "other_transports": None}


def test_without_the_right_to_send_options() -> None:
    """A server's user cannot send options: receiving works, and what was not tried is said."""
    findings, _ = _found(before=(sys.executable, "-c", _DROP_RAW))

    for part in ("IPv4 options", "IPv6 options"):
        assert findings["cmsg", part]["works"]
        assert "not tried (CAP_NET_RAW)" in findings["cmsg", part]["found"]


def test_without_ipv6() -> None:
    """Where IPv6 is off, its options are the only thing that does not work."""
    need("raw")
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1", encoding="ascii")
    findings, document = _found()

    assert not findings["cmsg", "IPv6 options"]["works"]
    assert "switch IPv6 on" in findings["cmsg", "IPv6 options"]["todo"]
    assert findings["cmsg", "IPv4 options"]["works"]
    assert document["ok"]


def test_a_kernel_that_drops_options() -> None:
    """A limit that lets no option pass is found by the datagram that is lost, and named."""
    need("raw")
    Path("/proc/sys/net/ipv6/max_dst_opts_length").write_text("8", encoding="ascii")
    findings, _ = _found()

    finding = findings["cmsg", "IPv6 options"]
    assert not finding["works"]
    assert "max_dst_opts_length is 8" in finding["found"]


def test_nothing_works() -> None:
    """Without a loopback interface nothing can be tried: status 1, and every line says why."""
    findings, document = _found(before=("unshare", "-n"))

    assert not document["ok"]
    assert not any(finding["works"] for finding in findings.values())
    assert all(finding["todo"] for finding in findings.values())


@pytest.mark.parametrize(("requests", "expected"), [((2048, 2051), 2051), ((2048,), 2048)])
def test_a_kernel_that_answers(requests: tuple[int, ...], expected: int) -> None:
    """The request that the kernel answers is named, and auto takes it where it has to."""
    with KernelTable() as table:
        table.answers(*requests)
        findings, document = _found()

    assert findings["sockopt", "getsockopt()"]["works"]
    assert str(expected) in findings["sockopt", "getsockopt()"]["found"]
    assert document["environment"]["auto"]["other_transports"] == "sockopt"


def test_trust_of_the_environment() -> None:
    """A mistake in UOA_TRUST, at which every server would fail, is an error with the way out."""
    assert _doctor(UOA_TRUST="10.0.0.0/24").returncode == 0
    result = _doctor(UOA_TRUST="10.0.0.0/24,10.0.0.300")

    assert result.returncode == 1
    assert result.stderr.startswith("uoa: UOA_TRUST: trust: '10.0.0.300' is not")
    assert not _found(UOA_TRUST="10.0.0.300")[1]["ok"]


def test_text_is_a_table_without_json() -> None:
    """In a pipe the table is plain text, one line a finding, and the remarks below it."""
    lines = _doctor().stdout.splitlines()

    assert lines[0].split() == ["backend", "part", "works", "found"]
    assert [line.split()[0] for line in lines[1:6]] == ["cmsg", "cmsg", "proxy", "proxy", "sockopt"]
    assert any(line.startswith("auto takes") for line in lines)
