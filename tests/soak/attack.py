# SPDX-License-Identifier: MIT
"""`python -m tests.soak.attack DATAGRAMS SEED`: attack an endpoint, report as JSON.

    trusted   10.0.0.5   2001:db8:a::5  ─┐
    untrusted 192.0.2.66 2001:db8:6::66 ─┴─►  10.0.1.9  2001:db8:b::9

All on the loopback interface of a network namespace that this process makes.
Closed loop: before each burst the server is asked whether the last but one has
arrived, so that nothing is lost but what the stack itself drops and counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.soak.traffic import Traffic
from uoa.cli import _netns

TRUSTED = ("10.0.0.5", "2001:db8:a::5")
UNTRUSTED = ("192.0.2.66", "2001:db8:6::66")
SERVER = ("10.0.1.9", "2001:db8:b::9")
_BURST = 128
_LOST_SECONDS = 10.0
_PROGRESS_SECONDS = 10.0


def stack_drops() -> int:
    """Return how many packets the IP layer of this namespace has refused so far.

    Not what UDP dropped: the bursts fit the server's buffer, and answers that
    nobody reads overflow the senders'.
    """
    names, values = (
        line.split()
        for line in Path("/proc/net/snmp").read_text("ascii").splitlines()
        if line.startswith("Ip:")
    )
    ipv6 = dict(line.split() for line in Path("/proc/net/snmp6").read_text("ascii").splitlines())
    return int(values[names.index("InHdrErrors")]) + int(ipv6["Ip6InHdrErrors"])


class _Server:
    """The endpoint's process, and the questions it answers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.endpoint", ",".join(TRUSTED)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        ready = self._out.readline().split()
        self.ports = int(ready[1]), int(ready[2])

    def has_all_of(self, sent: int) -> bool:
        """Wait until so many were delivered or dropped; False if some of them are lost."""
        deadline = time.monotonic() + _LOST_SECONDS
        while self._delivered() + stack_drops() < sent:
            if time.monotonic() > deadline:
                return False
        return True

    def _delivered(self) -> int:
        self._in.write("delivered\n")
        return int(self._out.readline())

    def report(self) -> dict[str, Any]:
        """Return what the server has seen by now."""
        self._in.write("report\n")
        answer: dict[str, Any] = json.loads(self._out.readline())
        return answer

    def close(self) -> None:
        """End it."""
        self._in.close()
        self._process.wait(10)


def attack(datagrams: int, seed: int) -> dict[str, Any]:
    """Send so many; return the server's last report and the balance."""
    _netns.enter()
    _netns.set_up([*TRUSTED, *UNTRUSTED, *SERVER])
    server = _Server()
    sources = [
        Traffic(seed + number, *hosts, (*SERVER, *server.ports))
        for number, hosts in enumerate((TRUSTED, UNTRUSTED))
    ]
    sent = 0
    early_kib = 0  # of the server, when a third has been sent
    started = shown = time.monotonic()
    while sent < datagrams and server.has_all_of(sent - _BURST):
        if not early_kib and sent >= datagrams / 3:
            early_kib = server.report()["resident_kib"]
        if (now := time.monotonic()) - shown > _PROGRESS_SECONDS:
            shown = now
            print(f"{sent} datagrams in {now - started:.0f} s", file=sys.stderr, flush=True)
        burst = min(_BURST, datagrams - sent)
        for number in range(burst):
            sources[number % 4 == 3].send_one()
        sent += burst
    server.has_all_of(sent)
    report = server.report()
    for source in sources:
        source.close()
    server.close()
    return {
        "sent": sent,
        "mutated": sum(source.mutated for source in sources),
        "drops": stack_drops(),
        "seconds": round(time.monotonic() - started, 1),
        "grown_kib": report["resident_kib"] - early_kib,
        **report,
    }


if __name__ == "__main__":
    print(json.dumps(attack(int(sys.argv[1]), int(sys.argv[2]))))
