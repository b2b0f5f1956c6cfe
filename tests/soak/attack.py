# SPDX-License-Identifier: MIT
"""`python -m tests.soak.attack SECONDS SEED`: attack an endpoint, report as JSON.

    trusted   10.0.0.5   2001:db8:a::5  ─┐
    untrusted 192.0.2.66 2001:db8:6::66 ─┴─►  10.0.1.9  2001:db8:b::9

All on the loopback interface of a network namespace that this process makes.
Closed loop: after each burst the server is asked what arrived, so that nothing
is lost but what the stack itself drops and counts.
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

    def report(self) -> dict[str, Any]:
        """Return what the server has seen by now."""
        self._in.write("\n")
        answer: dict[str, Any] = json.loads(self._out.readline())
        return answer

    def close(self) -> None:
        """End it."""
        self._in.close()
        self._process.wait(10)


def attack(seconds: float, seed: int) -> dict[str, Any]:
    """Attack for so long; return the server's last report and the balance."""
    _netns.enter()
    _netns.set_up([*TRUSTED, *UNTRUSTED, *SERVER])
    server = _Server()
    sources = [
        Traffic(seed + number, *hosts, (*SERVER, *server.ports))
        for number, hosts in enumerate((TRUSTED, UNTRUSTED))
    ]
    sent = 0
    early: dict[str, Any] = {}
    started = shown = time.monotonic()
    while (now := time.monotonic()) - started < seconds:
        for number in range(_BURST):
            sources[number % 4 == 3].send_one()
        sent += _BURST
        report = server.report()
        while report["delivered"] + stack_drops() < sent:
            if time.monotonic() - now > 10:
                break  # lost: the balance will say so
            report = server.report()
        if not early and now - started > seconds / 3:
            early = report
        if now - shown > _PROGRESS_SECONDS:
            shown = now
            print(f"{sent} datagrams in {now - started:.0f} s", file=sys.stderr, flush=True)
    for source in sources:
        source.close()
    server.close()
    return {
        "sent": sent,
        "drops": stack_drops(),
        "grown_kib": report["resident_kib"] - early["resident_kib"],
        **report,
    }


if __name__ == "__main__":
    print(json.dumps(attack(float(sys.argv[1]), int(sys.argv[2]))))
