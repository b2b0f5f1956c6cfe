# SPDX-License-Identifier: MIT
"""`uoa doctor`: on kernels that allow everything, and on such that do not.

What a kernel refuses is refused by the real one where a setting, a capability or
an interface can do that, and elsewhere by a seccomp filter, which answers a
system call in its place: with an error, or with a success that is a lie.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.capability import need
from tests.sockopt.kernel_table import KernelTable
from uoa.cli import _netns, doctor

LO: Final = pytest.mark.netns()

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 24, 38, 22  # linux/prctl.h
CAP_NET_RAW: Final = 13  # linux/capability.h
SECCOMP_MODE_FILTER, RET_ERRNO, RET_ALLOW = 2, 0x00050000, 0x7FFF0000  # linux/seccomp.h
IP_RECVOPTS: Final = 6  # linux/in.h

# asm/unistd.h, as far as the filters need it.
CALLS: Final = {
    "x86_64": {"socket": 41, "sendmsg": 46, "bind": 49, "setsockopt": 54},
    "aarch64": {"socket": 198, "sendmsg": 211, "bind": 200, "setsockopt": 208},
    "riscv64": {"socket": 198, "sendmsg": 211, "bind": 200, "setsockopt": 208},
}
# Another number and no capability, but the owner of the same files.
ORDINARY: Final = ("unshare", "--user", "--map-user=1000", "--map-group=1000")

ALL_WORK: Final = {
    "cmsg": {
        ("ipv4", "IP_RECVOPTS"): "works",
        ("ipv4", "ipo"): "works",
        ("ipv6", "IPV6_RECVDSTOPTS"): "works",
        ("ipv6", "ipo"): "works",
    },
    "proxy": {
        ("ipv4", "ppv2"): "works",
        ("ipv4", "spp"): "works",
        ("ipv6", "ppv2"): "works",
        ("ipv6", "spp"): "works",
    },
}


def _uoa(
    *arguments: str,
    prefix: tuple[str, ...] = (),
    trust: str | None = None,
    preexec_fn: Callable[[], object] | None = None,
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "UOA_TRUST"}
    return subprocess.run(
        [*prefix, sys.executable, "-m", "uoa", "doctor", *arguments],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
        env=environment if trust is None else environment | {"UOA_TRUST": trust},
        preexec_fn=preexec_fn,
    )


def _document(**how: Any) -> dict[str, Any]:
    """Return what it says where something works."""
    done = _uoa("--json", **how)
    assert (done.returncode, done.stderr) == (0, "")
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["ok"] is True
    return document


def _backend(document: dict[str, Any], name: str) -> dict[str, Any]:
    backend: dict[str, Any]
    (backend,) = (each for each in document["backends"] if each["name"] == name)
    return backend


def _results(document: dict[str, Any], name: str) -> dict[tuple[str, str], str]:
    tried = _backend(document, name)["tried"]
    return {(trial["wire"], trial["what"]): trial["result"] for trial in tried}


def _trial(document: dict[str, Any], name: str, wire: str, what: str) -> tuple[str, str, str]:
    """Return the result of one trial, with its reason and what to do."""
    (trial,) = (
        each
        for each in _backend(document, name)["tried"]
        if (each["wire"], each["what"]) == (wire, what)
    )
    return trial["result"], trial["why"], trial["todo"]


def _set(name: str, value: int) -> None:
    """Change a setting of the test's own network namespace."""
    Path("/proc/sys", name.replace(".", "/")).write_text(str(value), encoding="ascii")


def _prctl(*arguments: int) -> None:
    """Change what the program that is about to start may do."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*map(ctypes.c_ulong, arguments), *[ctypes.c_ulong(0)] * (5 - len(arguments))):
        raise OSError(ctypes.get_errno(), "prctl")


_without_raw = partial(_prctl, PR_CAPBSET_DROP, CAP_NET_RAW)


def _kernel_that_answers(call: str, error: int, arguments: dict[int, int] | None = None) -> None:
    """Let a system call with these arguments end so, undone: error 0 is a success."""
    wanted = [(0, CALLS[platform.machine()][call])]
    wanted += [(16 + 8 * number, value) for number, value in (arguments or {}).items()]
    code = b""
    for left, (offset, value) in zip(range(len(wanted), 0, -1), wanted, strict=True):
        # Load a word of seccomp_data; other than this value: skip to the last line.
        code += struct.pack("=HBBI", 0x20, 0, 0, offset)
        code += struct.pack("=HBBI", 0x15, 0, 2 * left - 1, value)
    code += struct.pack("=HBBI", 0x06, 0, 0, RET_ERRNO | error)
    code += struct.pack("=HBBI", 0x06, 0, 0, RET_ALLOW)
    lines = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(
        struct.pack("@HP", len(code) // 8, ctypes.addressof(lines))
    )
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))


class TestBackends:
    """What is tried, and what comes of it."""

    @LO
    def test_everything_works_where_options_can_be_sent(self) -> None:
        """Options and headers arrive over both wires, and name the client."""
        document = _document()

        assert {name: _results(document, name) for name in ALL_WORK} == ALL_WORK
        for name in ALL_WORK:
            backend = _backend(document, name)
            assert (backend["works"], backend["why"], backend["todo"]) == (True, None, None)
        assert document["auto"]["ours"] == "cmsg"
        assert document["environment"]["ipv6"] is True

    @LO
    @pytest.mark.parametrize("wire", ["ipv4", "ipv6"])
    def test_servers_need_no_capability(self, wire: str) -> None:
        """Without CAP_NET_RAW the sending half is not tried, and the backend works."""
        document = _document(preexec_fn=_without_raw)

        assert _trial(document, "cmsg", wire, "ipo") == (
            "not tried",
            "sending it needs CAP_NET_RAW, which servers do without",
            "be root to try this as well",
        )
        assert _backend(document, "cmsg")["works"] is True
        assert "fails" not in _results(document, "cmsg").values()
        assert _results(document, "proxy") == ALL_WORK["proxy"]

    @LO
    def test_an_ordinary_user_can_run_it(self) -> None:
        """A user without any capability gets the same answers."""
        need("userns")
        document = _document(prefix=ORDINARY)

        assert set(_results(document, "cmsg").values()) == {"works", "not tried"}
        assert _results(document, "proxy") == ALL_WORK["proxy"]

    @LO
    def test_ipv6_that_is_switched_off_is_named(self) -> None:
        """The setting is named, IPv4 goes on to work, and so do the backends."""
        _set("net.ipv6.conf.all.disable_ipv6", 1)
        document = _document()

        setting = "net.ipv6.conf.lo.disable_ipv6"
        expected = (
            "fails",
            f"{setting} is 1: ::1: Cannot assign requested address",
            f"nothing, unless balancers reach this host over ipv6: sysctl -w {setting}=0",
        )
        assert _trial(document, "cmsg", "ipv6", "IPV6_RECVDSTOPTS") == expected
        assert _trial(document, "proxy", "ipv6", "ppv2") == expected
        assert ("ipv6", "ipo") not in _results(document, "cmsg")
        assert _results(document, "cmsg")["ipv4", "ipo"] == "works"
        assert _backend(document, "cmsg")["works"] is True
        assert document["environment"]["ipv6"] is False

    @LO
    def test_a_kernel_without_ipv6_is_named(self) -> None:
        """Where there is no such socket, no setting can help."""
        no_ipv6 = partial(
            _kernel_that_answers, "socket", errno.EAFNOSUPPORT, {0: int(socket.AF_INET6)}
        )
        document = _document(preexec_fn=no_ipv6)

        assert _trial(document, "proxy", "ipv6", "spp") == (
            "fails",
            "the kernel has no ipv6",
            "nothing, unless balancers reach this host over ipv6: then boot with it",
        )
        assert _results(document, "cmsg")["ipv4", "ipo"] == "works"
        assert document["environment"]["ipv6"] is False

    @LO
    @pytest.mark.parametrize("preexec_fn", [None, _without_raw], ids=["root", "unprivileged"])
    @pytest.mark.parametrize(
        ("setting", "value", "usual"),
        [
            ("net.ipv6.max_dst_opts_number", 0, 8),
            ("net.ipv6.max_dst_opts_number", -8, 8),
            ("net.ipv6.max_dst_opts_length", 23, 0x7FFFFFFF),
        ],
    )
    def test_settings_that_drop_options_are_named(
        self, setting: str, value: int, usual: int, preexec_fn: Callable[[], object] | None
    ) -> None:
        """The kernel drops such packets without a word, and whoever asks is told why."""
        _set(setting, value)
        document = _document(preexec_fn=preexec_fn)

        assert _trial(document, "cmsg", "ipv6", "ipo") == (
            "fails",
            f"{setting} is {value}, so that the kernel drops what has such an option",
            f"sysctl -w {setting}={usual}",
        )
        assert _results(document, "cmsg")["ipv4", "ipo"] != "fails"
        assert _results(document, "proxy") == ALL_WORK["proxy"]

    @LO
    @pytest.mark.parametrize(
        ("setting", "value"),
        [("net.ipv6.max_dst_opts_number", 1), ("net.ipv6.max_dst_opts_length", 24)],
    )
    def test_settings_that_just_suffice_are_no_failure(self, setting: str, value: int) -> None:
        """One option of 24 bytes passes where one of 24 bytes may, and is not said to fail."""
        _set(setting, value)

        assert _results(_document(), "cmsg") == ALL_WORK["cmsg"]
        unprivileged = _document(preexec_fn=_without_raw)
        assert _trial(unprivileged, "cmsg", "ipv6", "ipo")[0] == "not tried"

    @LO
    def test_a_kernel_that_gives_no_options_is_no_place_for_cmsg(self) -> None:
        """The option that it refuses is named, and that `auto` takes what does not work."""
        refuse = partial(
            _kernel_that_answers,
            "setsockopt",
            errno.ENOPROTOOPT,
            {1: socket.IPPROTO_IP, 2: IP_RECVOPTS},
        )
        document = json.loads(_uoa("--json", preexec_fn=refuse).stdout)
        text = _uoa(preexec_fn=refuse).stdout

        why = "IP_RECVOPTS: Protocol not available"
        todo = "use another backend, or a system that allows this"
        cmsg = _backend(document, "cmsg")
        assert (cmsg["works"], cmsg["why"], cmsg["todo"]) == (False, why, todo)
        assert _trial(document, "cmsg", "ipv4", "IP_RECVOPTS") == ("fails", why, todo)
        assert ("ipv4", "ipo") not in _results(document, "cmsg")
        assert "sockets: cmsg, which does not work here\n" in text

    @LO
    def test_options_that_get_lost_are_noticed(self) -> None:
        """A system that takes the request and gives no options is found out."""
        lie = partial(_kernel_that_answers, "setsockopt", 0, {1: socket.IPPROTO_IP, 2: IP_RECVOPTS})
        document = _document(preexec_fn=lie)

        assert _results(document, "cmsg")["ipv4", "IP_RECVOPTS"] == "works"
        assert _trial(document, "cmsg", "ipv4", "ipo") == (
            "fails",
            "the datagram arrived, but not the client in its ipo",
            'use dialects="ppv2", which no system takes out on the way',
        )
        assert _results(document, "cmsg")["ipv6", "ipo"] == "works"

    @LO
    def test_datagrams_that_get_lost_are_noticed(self) -> None:
        """What is sent and never arrives makes every backend of ours fail, and is an error."""
        lose = partial(_kernel_that_answers, "sendmsg", 0)
        done = _uoa("--json", preexec_fn=lose)
        document = json.loads(done.stdout)

        for name, wire, what, carrier in (
            ("cmsg", "ipv4", "ipo", "datagrams with IP options"),
            ("proxy", "ipv6", "spp", "datagrams on lo"),
        ):
            assert _trial(document, name, wire, what) == (
                "fails",
                "the datagram did not arrive within 1 s",
                f"look for a packet filter that drops {carrier}: nft list ruleset",
            )
        assert _backend(document, "cmsg")["works"] is _backend(document, "proxy")["works"] is False

    @LO
    def test_other_refusals_are_told_in_the_kernels_words(self) -> None:
        """A policy that forbids to bind is reported as what it says."""
        done = _uoa("--json", preexec_fn=partial(_kernel_that_answers, "bind", errno.EACCES))

        assert _trial(json.loads(done.stdout), "proxy", "ipv4", "ppv2") == (
            "fails",
            "127.0.0.1: Permission denied",
            "use another backend, or a system that allows this",
        )


class TestSockopt:
    """Who answers getsockopt()."""

    def test_our_own_request_is_found(self) -> None:
        """2051 is what a kernel with uoa answers, and `auto` takes it for others' transports."""
        with KernelTable():
            document = _document()

        assert _backend(document, "sockopt") == {
            "name": "sockopt",
            "works": True,
            "why": None,
            "todo": None,
            "tried": [{"what": "2051", "wire": None, "result": "works", "why": None, "todo": None}],
        }
        assert document["auto"] == {"ours": "cmsg", "others": "sockopt"}

    def test_an_older_module_is_found(self) -> None:
        """2048 works too, and what it cannot tell is told."""
        with KernelTable() as table:
            table.answers(2048)
            document = _document()

        (trial,) = _backend(document, "sockopt")["tried"]
        assert (trial["what"], trial["result"]) == ("2048", "works")
        assert trial["why"] == "nobody answers 2051, so that VIP, dialect and age stay unknown"
        assert _backend(document, "sockopt")["works"] is True
        assert document["auto"]["others"] == "sockopt"

    def test_a_kernel_that_answers_nothing_is_none(self) -> None:
        """Without an answer the backend does not work, and `auto` has nothing for others."""
        with KernelTable() as table:
            table.answers()
            document = _document()
            text = _uoa().stdout

        why = "nobody answers these getsockopt() requests"
        sockopt = _backend(document, "sockopt")
        assert (sockopt["works"], sockopt["why"]) == (False, why)
        assert sockopt["todo"].startswith("load a module or a program that does, or use cmsg")
        assert [trial["what"] for trial in sockopt["tried"]] == ["2051, 2048"]
        assert document["auto"] == {"ours": "cmsg", "others": None}
        assert f"sockopt  -     2051, 2048        fails      {why}: load a module" in text
        assert 'transports of others: none: say dialects="ppv2"' in text


class TestTrust:
    """What UOA_TRUST means."""

    @LO
    @pytest.mark.parametrize(
        ("value", "prefixes", "why", "line"),
        [
            (None, None, None, "UOA_TRUST is not set: programs name their balancers themselves"),
            ("", [], None, "UOA_TRUST: nobody"),
            (
                "10.0.0.0/24, 2001:db8::/64",
                ["10.0.0.0/24", "2001:db8::/64"],
                None,
                "UOA_TRUST: 10.0.0.0/24, 2001:db8::/64",
            ),
            (
                "10.0.0.0/24,10.0.1.1/24",
                None,
                "trust: '10.0.1.1/24' has bits set behind its prefix length: "
                "write 10.0.1.0/24 for the network or 10.0.1.1 for the host",
                None,
            ),
            (
                "lb.example.org",
                None,
                "trust: 'lb.example.org' is not an IPv4 or IPv6 prefix such as 10.0.0.0/24",
                None,
            ),
            (
                "*",
                ["0.0.0.0/0", "::/0"],
                'trust="*": every sender can claim to be any client; name your balancers instead',
                None,
            ),
        ],
    )
    def test_it_is_read_as_servers_read_it(
        self, value: str | None, prefixes: list[str] | None, why: str | None, line: str | None
    ) -> None:
        """The prefixes are listed, or what is wrong with them; no backend fails of it."""
        document = _document(trust=value)
        text = _uoa(trust=value).stdout

        assert document["environment"]["trust"] == {
            "value": value,
            "prefixes": prefixes,
            "why": why,
        }
        assert f"trust    {line or f'UOA_TRUST={value}: {why}'}\n" in text
        assert _results(document, "proxy") == ALL_WORK["proxy"]


class TestOutput:
    """What is printed, and where."""

    @LO
    def test_the_report_is_readable(self) -> None:
        """A line for each trial, then what follows from them and what they were tried on."""
        done = _uoa()
        header, *lines = done.stdout.splitlines()

        assert (done.returncode, done.stderr) == (0, "")
        assert header == "backend  wire  tried             result     why, and what to do"
        assert lines[:8] == [
            "cmsg     ipv4  IP_RECVOPTS       works",
            "cmsg     ipv4  ipo               works",
            "cmsg     ipv6  IPV6_RECVDSTOPTS  works",
            "cmsg     ipv6  ipo               works",
            "proxy    ipv4  ppv2              works",
            "proxy    ipv4  spp               works",
            "proxy    ipv6  ppv2              works",
            "proxy    ipv6  spp               works",
        ]
        assert lines[9].startswith("works    cmsg, proxy")
        assert lines[10] == "auto     for uoa's own endpoints and sockets: cmsg"
        assert [line.split()[0] for line in lines[11:]] == [
            "auto", "trust", "buffer", "ipv6", "kernel", "uoa",
        ]  # fmt: skip

    @LO
    def test_the_document_has_its_schema(self) -> None:
        """--json prints one document, with the names that docs/command-line.md lists."""
        document = _document()

        assert list(document) == ["schema", "ok", "backends", "auto", "environment"]
        assert document["schema"] == 1
        assert [each["name"] for each in document["backends"]] == ["cmsg", "proxy", "sockopt"]
        for backend in document["backends"]:
            assert set(backend) == {"name", "works", "why", "todo", "tried"}
            for trial in backend["tried"]:
                assert set(trial) == {"what", "wire", "result", "why", "todo"}
        assert set(document["auto"]) == {"ours", "others"}
        environment = document["environment"]
        assert list(environment) == [
            "uoa", "python", "kernel", "ipv6", "trust", "receive_buffer",
        ]  # fmt: skip
        assert environment["kernel"] == os.uname().release
        assert environment["python"] == platform.python_version()
        assert set(environment["receive_buffer"]) == {"default", "max", "todo"}

    @LO
    def test_the_receive_buffer_is_what_a_socket_gets(self) -> None:
        """The figures are those of net.core.rmem_default and rmem_max."""
        buffer = _document()["environment"]["receive_buffer"]
        for name, key in (("rmem_default", "default"), ("rmem_max", "max")):
            value = Path("/proc/sys/net/core", name)
            if value.exists():  # older kernels show it outside of namespaces only
                assert buffer[key] == int(value.read_text(encoding="ascii"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            assert buffer["default"] == sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    @pytest.mark.parametrize(
        ("default", "most", "hint"),
        [
            (212992, 212992, None),
            (131072, 4096, None),
            (131071, 131072, "set SO_RCVBUF, or sysctl -w net.core.rmem_default=131072"),
            (
                4096,
                65536,
                "sysctl -w net.core.rmem_max=131072, then set SO_RCVBUF, "
                "or sysctl -w net.core.rmem_default=131072",
            ),
        ],
    )
    def test_only_small_buffers_are_worth_a_hint(
        self, default: int, most: int, hint: str | None
    ) -> None:
        """What most kernels give is enough to say nothing about."""
        assert doctor.buffer_hint(default, most) == hint

    @LO
    @pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["text", "json"])
    def test_it_is_an_error_when_nothing_works(self, arguments: list[str]) -> None:
        """With its loopback interface down nothing can be received: status 1, and why."""
        done = _uoa(*arguments, preexec_fn=_netns.enter)

        assert done.returncode == 1
        assert done.stderr == (
            "uoa: doctor: no backend works here: the loopback interface is down: "
            "sending to 127.0.0.1: Network is unreachable: ip link set lo up\n"
        )
        if arguments:
            document = json.loads(done.stdout)
            assert document["ok"] is False
            assert not any(backend["works"] for backend in document["backends"])
            todos = [backend["todo"] for backend in document["backends"][:2]]
            assert todos == ["ip link set lo up"] * 2
        else:
            assert "\nworks    nothing\n" in done.stdout

    def test_wrong_arguments_are_usage_errors(self) -> None:
        """They are named on stderr, with status 2, and nothing is tried."""
        done = _uoa("cmsg")

        assert (done.returncode, done.stdout) == (2, "")
        assert "unrecognized arguments: cmsg" in done.stderr
