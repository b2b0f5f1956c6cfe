# SPDX-License-Identifier: MIT
"""Programs in the foreground, what they write, and questions to the DNS servers among them."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from tests.senders import Address
from uoa.cli import _hostport

PATIENCE: Final = 30  # seconds, for what takes milliseconds

PYTHON: Final = (sys.executable, "-W", "error")

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
# Programs that catch SIGTERM end with 0, or with what a shell would say of it.
_ENDED: Final = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


class Program:
    """A program that runs, and the lines that it has written so far."""

    def __init__(self, *command: str) -> None:
        self._name = Path(command[0]).name
        # A group of its own, by which stop() finds what the program has started.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._news:
                    self._lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def lines(self, pattern: str) -> list[str]:
        """Return the lines written so far in which the pattern is found."""
        with self._news:
            return [line for line in self._lines if re.search(pattern, line)]

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until the pattern was found in so many lines, and return them."""
        with self._news:
            self._news.wait_for(lambda: self._ended or len(self.lines(pattern)) >= count, PATIENCE)
            found = self.lines(pattern)
        assert len(found) >= count, f"{self._name} wrote {len(found)} of {count} lines {pattern!r}"
        return found

    def stop(self) -> int:
        """End the program and all that it has started, show its output, return its status."""
        self._process.terminate()
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-self._process.pid, 0)
        self._reader.join()
        print(f"---- {self._name}, status {status}", *self._lines, sep="\n")
        return status


@contextmanager
def running(*command: str, ready: str | None = None) -> Iterator[Program]:
    """Run a program until the block ends; the block begins when a line has the pattern `ready`."""
    # What a program leaves behind becomes a child of ours, for which stop() can wait.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    program = Program(*command)
    try:
        if ready is not None:
            program.wait_for(ready)
        yield program
    except BaseException:
        program.stop()
        raise
    status = program.stop()
    assert status in _ENDED, f"{command[0]} ended with status {status}"


@contextmanager
def balancing(listen: Address, to: Address, dialect: str, trail: int) -> Iterator[Program]:
    """Run `uoa lb`."""
    with running(
        *PYTHON, "-m", "uoa", "lb",
        "--listen", _hostport.text_of(listen), "--to", _hostport.text_of(to),
        "--dialect", dialect, "--trail", str(trail),
        ready="^ready: ",
    ) as program:  # fmt: skip
        yield program


class Answer(NamedTuple):
    """What a DNS server said."""

    status: str
    records: list[str]


def dig(source: Address, to: Address, name: str, kind: str, *, falls_back: bool = False) -> Answer:
    """Ask the server at `to`, from an address that is given down to its port.

    With `falls_back` a truncated answer is asked for again over TCP.
    """
    result = subprocess.run(
        [
            "dig", "-r", "+noall", "+comments", "+answer", "+tries=1",
            "+noignore" if falls_back else "+ignore",
            f"+time={PATIENCE}", "-b", "{}#{}".format(*source), "-p", str(to[1]), f"@{to[0]}",
            name, kind,
        ],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, f"{source} asked {to}: {result.stdout}"
    status = re.search(r"status: (\w+)", result.stdout)
    assert status is not None, result.stdout
    records = [
        line.split(maxsplit=4)[4].strip('"')
        for line in result.stdout.splitlines()
        if line and not line.startswith(";")
    ]
    return Answer(status[1], records)
