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
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tests.soak.traffic import Target, Traffic
from uoa.cli import _netns

TRUSTED = ("10.0.0.5", "2001:db8:a::5")
UNTRUSTED = ("192.0.2.66", "2001:db8:6::66")
SERVER = ("10.0.1.9", "2001:db8:b::9")
_BURST = 128
_LOST_SECONDS = 10.0
_END_SECONDS = 60.0
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


class Server:
    """A server's process, and the questions it answers."""

    def __init__(self, *arguments: str, stderr: IO[bytes] | None = None) -> None:
        """`arguments` are a module's name and its own; it says "ready" and its ports."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            bufsize=1,
            # Threads share a heap, so that its size tells more than who allocated when.
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        _, *ports = self._out.readline().split()
        self.ports = tuple(int(port) for port in ports)

    def has_all_of(self, sent: int, dropped: Callable[[], int] = stack_drops) -> bool:
        """Wait until so many were delivered or dropped; False if some of them are lost."""
        deadline = time.monotonic() + _LOST_SECONDS
        while self.ask("delivered") + dropped() < sent:
            if time.monotonic() > deadline:
                return False
        return True

    def ask(self, question: str) -> Any:
        """Return the server's answer."""
        self._in.write(question + "\n")
        return json.loads(self._out.readline())

    def report(self) -> dict[str, Any]:
        """Return what the server has seen by now."""
        answer: dict[str, Any] = self.ask("report")
        return answer

    def close(self) -> int:
        """End it; return its exit status."""
        self._in.close()
        return self._process.wait(_END_SECONDS)


def attack(datagrams: int, seed: int) -> dict[str, Any]:
    """Send so many; return the server's last report and the balance."""
    _netns.enter()
    _netns.set_up([*TRUSTED, *UNTRUSTED, *SERVER])
    server = Server("tests.soak.endpoint", ",".join(TRUSTED))
    sources = [
        Traffic(seed + number, *hosts, Target(*SERVER, *server.ports))
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
