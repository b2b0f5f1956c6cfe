# SPDX-License-Identifier: MIT
"""What all tests share: hypothesis without clock and files, and the marker `netns`.

    @pytest.mark.netns("10.0.0.1", "2001:db8::1")
    def test_something() -> None:

runs the test in a child process, in a fresh network namespace whose loopback
interface has these addresses as well. Root makes one directly, others inside a
user namespace; either way options can be sent there. What a test makes must be
gone at its end: an open socket or a process left behind fails it, and the
namespace itself ends with the child.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from hypothesis import settings

from tests.capability import need
from uoa.cli import _netns

_TIME_WAIT: Final = "06"  # net/tcp_states.h
_TABLES: Final = ("udp", "udp6", "tcp", "tcp6", "raw", "raw6")

settings.register_profile("uoa", deadline=None, database=None, print_blob=True)
settings.load_profile("uoa")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker: unknown ones are errors."""
    config.addinivalue_line(
        "markers", "netns(*addresses): run in a fresh network namespace, with addresses on lo"
    )


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Let a test that has the marker run in a child."""
    marker = pyfuncitem.get_closest_marker("netns")
    if marker is not None:
        pyfuncitem.obj = functools.partial(_in_child, pyfuncitem.obj, marker.args)
    return (yield)


def _in_child(test: Callable[..., None], addresses: Sequence[str], **arguments: Any) -> None:
    """Run a test in a child and take its outcome over."""
    need("netns")
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of fork() beside threads: this child calls exit at its end.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(read)
        _be_child(functools.partial(test, **arguments), addresses, write)
    os.close(write)
    try:
        with open(read, encoding="utf-8") as report:
            outcome, _, text = report.read().partition("\n")
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if outcome == "skipped":
        pytest.skip(text)
    if outcome != "passed":
        pytest.fail(text or f"the test's process ended with status {status}", pytrace=False)


def _be_child(test: Callable[[], None], addresses: Sequence[str], write: int) -> NoReturn:
    unraisable: list[object] = []
    sys.unraisablehook = lambda problem: unraisable.append((problem.exc_value, problem.object))
    try:
        _netns.enter()
        _netns.set_up(addresses)
        test()
        _assert_clean()
        assert not unraisable, f"unraisable: {unraisable}"
        report = "passed\n"
    except pytest.skip.Exception as skip:
        report = f"skipped\n{skip.msg}"
    except BaseException:
        report = f"failed\n{traceback.format_exc()}"
    os.write(write, report.encode(errors="replace"))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def _assert_clean() -> None:
    """Find sockets and processes that a test has left in its namespace."""
    for table in _TABLES:
        _, *sockets = Path(f"/proc/self/net/{table}").read_text(encoding="ascii").splitlines()
        # A closed TCP connection is remembered for a minute; it belongs to nobody.
        sockets = [line for line in sockets if line.split()[3] != _TIME_WAIT]
        assert not sockets, f"sockets are still open: {sockets}"
    ours = os.readlink("/proc/self/ns/net")
    for process in Path("/proc").glob("[0-9]*"):
        if process.name != str(os.getpid()):
            with suppress(OSError):  # it is gone, or another user's
                assert os.readlink(process / "ns/net") != ours, f"process {process.name} lives on"
