# SPDX-License-Identifier: MIT
"""`uoa send`: what it really sends, seen by plain sockets.

    uoa send ──► lo ──► a UDP socket with IP_RECVOPTS / IPV6_RECVDSTOPTS,
                        a raw socket of protocol 248, a packet socket

in a network namespace of each test's own. Expected bytes are written by hand
from the drawings of docs/wire-format.md section 1.
"""

from __future__ import annotations

import ctypes
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from uoa import wire

IP_RECVOPTS = 6  # linux/in.h
IPV6_RECVDSTOPTS, IPV6_DSTOPTS = 58, 59  # linux/in6.h
ETH_P_ALL = 3
PR_CAPBSET_DROP = 24  # linux/prctl.h
CAP_NET_RAW = 13  # linux/capability.h

HOSTS = {4: "10.1.0.9", 6: "2001:db8:1::9"}
SENDERS = {4: "10.1.0.5", 6: "2001:db8:1::5"}
LO = pytest.mark.netns(*HOSTS.values(), *SENDERS.values())

CLIENT = {4: "203.0.113.77:51234", 6: "[2001:db8::77]:51234"}
VIP = {4: "198.51.100.10:443", 6: "[2001:db8::10]:443"}
C4, C6 = "cb00714d", "20010db8000000000000000000000077"
V4, V6 = "c633640a", "20010db8000000000000000000000010"
MAPPED = "00000000000000000000ffff"
SIGNATURE = "0d0a0d0a000d0a515549540a"

# Dialect, family of the packet, family of client and VIP, what the dialect adds.
OPTIONS = [
    ("ipo", 4, 4, f"1f08 c822 {C4}"),
    ("ipo", 4, 6, f"1f14 c822 {C6}"),
    ("ipo", 6, 4, f"1101 1f06 c822 {C4} 0104 00000000"),
    ("ipo", 6, 6, f"1102 1f12 c822 {C6} 0100"),
    ("bd31", 4, 4, f"1f100000 c822 01bb {C4} {V4}"),
    ("bd31", 4, 6, f"1f280100 c822 01bb {C6} {V6}"),
    ("bd31", 6, 4, f"1101 1f0c c822 01bb {C4} {V4}"),
    ("bd31", 6, 6, f"1104 1f24 c822 01bb {C6} {V6}"),
    ("bd30", 4, 4, f"1e100000 c822 01bb {C4} {V4}"),
    ("bd30", 4, 6, f"1e280100 c822 01bb {C6} {V6}"),
    ("bd30", 6, 4, f"1101 1e0c c822 01bb {C4} {V4}"),
    ("bd30", 6, 6, f"1104 1e24 c822 01bb {C6} {V6}"),
    ("bd29", 4, 4, f"1d100000 00001267 c822 0000 {C4}"),
    ("bd29", 4, 6, f"1d200100 00001267 c822 0000 {C6} 00000000"),
    ("bd29", 6, 4, f"1101 1d0c 00001267 c822 0000 {C4}"),
    ("bd29", 6, 6, f"1103 1d1c 00001267 c822 0000 {C6} 00000000"),
]
OPPS = [
    ("opp", 4, 4, f"1011000c 1f08 c822 {C4}"),
    ("opp", 4, 6, f"20110018 1f14 c822 {C6}"),
    ("opp", 6, 4, f"1011000c 1f08 c822 {C4}"),
    ("opp", 6, 6, f"20110018 1f14 c822 {C6}"),
]
HEADERS = [
    ("ppv2", 4, 4, f"{SIGNATURE} 2112 000c {C4} {V4} c822 01bb"),
    ("ppv2", 4, 6, f"{SIGNATURE} 2122 0024 {C6} {V6} c822 01bb"),
    ("ppv2", 6, 4, f"{SIGNATURE} 2112 000c {C4} {V4} c822 01bb"),
    ("ppv2", 6, 6, f"{SIGNATURE} 2122 0024 {C6} {V6} c822 01bb"),
    ("spp", 4, 4, f"56ec {MAPPED}{C4} {MAPPED}{V4} c822 01bb"),
    ("spp", 4, 6, f"56ec {C6} {V6} c822 01bb"),
    ("spp", 6, 4, f"56ec {MAPPED}{C4} {MAPPED}{V4} c822 01bb"),
    ("spp", 6, 6, f"56ec {C6} {V6} c822 01bb"),
    ("none", 4, 4, ""),
    ("none", 6, 6, ""),
]
ALL = pytest.mark.parametrize(("dialect", "outer", "family", "drawn"), [*OPTIONS, *OPPS, *HEADERS])


def _receiver(outer: int) -> socket.socket:
    """Return a bound UDP socket that asks for options."""
    sock = socket.socket(socket.AF_INET if outer == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    sock.settimeout(10)
    sock.bind((HOSTS[outer], 0))
    if outer == 4:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVOPTS, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVDSTOPTS, 1)
    return sock


def _to(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _uoa(
    *arguments: str, preexec_fn: Callable[[], object] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "uoa", "send", *arguments],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
        preexec_fn=preexec_fn,
    )


def _sent(*arguments: str) -> dict[str, Any]:
    """Send, and return the report."""
    done = _uoa(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _error(*arguments: str, status: int = 1, preexec_fn: Callable[[], object] | None = None) -> str:
    """Return the message of a failure that prints nothing else."""
    done = _uoa(*arguments, preexec_fn=preexec_fn)
    assert (done.returncode, done.stdout) == (status, "")
    return done.stderr


def _arguments(dialect: str, family: int) -> list[str]:
    claim = ["--client", CLIENT[family], "--vip", VIP[family], "--vni", "4711"]
    return ["--dialect", dialect, *claim, "--payload", "query"]


def _bytes(drawn: str) -> bytes:
    return bytes.fromhex(drawn.replace(" ", ""))


def _received(sock: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]], tuple[Any, ...]]:
    data, ancillary, _, peer = sock.recvmsg(65536, 4096)
    return data, ancillary, peer


def _is_udp_checksum_right(packet: bytes) -> bool:
    """Judge a packet without options, by RFC 768."""
    ipv6 = packet[0] >> 4 == 6
    addresses, udp = (packet[8:40], packet[40:]) if ipv6 else (packet[12:20], packet[20:])
    data = addresses + bytes([0, 17]) + len(udp).to_bytes(2, "big") + udp
    return _ones_sum(data + bytes(len(data) % 2)) == 0xFFFF


def _ones_sum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class TestDialects:
    """Every dialect, in every pair of families."""

    @LO
    @pytest.mark.parametrize(("dialect", "outer", "family", "drawn"), OPTIONS)
    def test_options_arrive_beside_the_payload(
        self, dialect: str, outer: int, family: int, drawn: str
    ) -> None:
        """The socket gets the option, byte for byte, and a payload without it."""
        with _receiver(outer) as sock:
            report = _sent(_to(sock), *_arguments(dialect, family))

            data, ancillary, peer = _received(sock)

        level, kind = (0, IP_RECVOPTS) if outer == 4 else (41, IPV6_DSTOPTS)
        assert data == b"query"
        assert ancillary == [(level, kind, _bytes(drawn))]
        assert report["from"] == list(peer[:2])

    @LO
    @pytest.mark.parametrize(("dialect", "outer", "family", "drawn"), HEADERS)
    def test_headers_arrive_in_the_payload(
        self, dialect: str, outer: int, family: int, drawn: str
    ) -> None:
        """The payload begins with the header, byte for byte, and no option comes along."""
        with _receiver(outer) as sock:
            _sent(_to(sock), *_arguments(dialect, family))

            data, ancillary, _ = _received(sock)

        assert data == _bytes(drawn) + b"query"
        assert ancillary == []

    @LO
    @pytest.mark.parametrize(("dialect", "outer", "family", "drawn"), OPPS)
    def test_opp_arrives_as_protocol_248(
        self, dialect: str, outer: int, family: int, drawn: str
    ) -> None:
        """The header stands between IP and a UDP datagram whose checksum is right without it."""
        inet = socket.AF_INET if outer == 4 else socket.AF_INET6
        with _receiver(outer) as udp, socket.socket(inet, socket.SOCK_RAW, 248) as sock:
            sock.settimeout(10)
            report = _sent(_to(udp), *_arguments(dialect, family))

            data = sock.recv(65536)
            to = udp.getsockname()[1]

        if outer == 4:
            assert (data[0], data[9]) == (0x45, 248)
            data = data[20:]
        opp = _bytes(drawn)
        ports = report["from"][1].to_bytes(2, "big") + to.to_bytes(2, "big")
        assert data[: len(opp)] == opp
        assert data[len(opp) :][:6] == ports + b"\x00\x0d"
        assert data[len(opp) + 8 :] == b"query"
        assert _is_udp_checksum_right(bytes.fromhex(report["decoded"]["expect"]["stripped"]))

    @LO
    @ALL
    def test_the_report_tells_what_was_on_the_wire(
        self, dialect: str, outer: int, family: int, drawn: str
    ) -> None:
        """The packet that it prints and judges is the one that a packet socket sees."""
        with (
            _receiver(outer) as udp,
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as sock,
        ):
            sock.settimeout(10)
            report = _sent(_to(udp), *_arguments(dialect, family))
            seen = sock.recv(65536)

        packet = bytes.fromhex(report["packet"])
        assert _comparable(seen) == _comparable(packet)
        assert outer == 6 or _ones_sum(packet[: (packet[0] & 15) * 4]) == 0xFFFF
        assert report["decoded"]["expect"] == wire.decode(packet).as_dict()
        assert report["decoded"]["reason"] == ("absent" if dialect == "none" else "found")
        assert report["decoded"]["expect"].get("dialect", "none") == dialect


def _comparable(packet: bytes) -> bytes:
    """Blank what the kernel chooses or leaves to the device: id, flow label, checksums."""
    blank = bytearray(packet)
    if packet[0] >> 4 == 4:
        blank[4:8], blank[10:12] = b"....", b".."
        offset, protocol = (packet[0] & 15) * 4, packet[9]
    else:
        blank[0:4] = b"...."
        offset, protocol = 40, packet[6]
        if protocol == 60:
            protocol, offset = packet[40], 40 + (packet[41] + 1) * 8
    if protocol == 17:
        blank[offset + 6 : offset + 8] = b".."
    return bytes(blank)


class TestNotWellFormed:
    """Bytes that are given are sent as they are."""

    @LO
    def test_ipv4_option_bytes_are_sent_as_given(self) -> None:
        """An undefined length is legal to the kernel and malformed to the parser."""
        with _receiver(4) as sock:
            report = _sent(_to(sock), "--option", "01 1f 09 c822 cb00714d 00")

            data, ancillary, _ = _received(sock)

        assert data == b"hello"
        assert ancillary == [(0, IP_RECVOPTS, _bytes("01 1f 09 c822 cb00714d 00 0000"))]
        assert report["dialect"] == "none"
        assert report["decoded"]["reason"] == "malformed"
        assert report["decoded"]["rule"] == "4.3"
        assert report["decoded"]["rule_text"] == "address option of an undefined length"

    @LO
    def test_an_ipv6_header_is_sent_as_given(self) -> None:
        """The kernel fills in Next Header and nothing else."""
        with _receiver(6) as sock:
            report = _sent(_to(sock), "--option", "ff 00 1f 04 01020304")

            _, ancillary, _ = _received(sock)

        assert ancillary == [(41, IPV6_DSTOPTS, _bytes("1100 1f04 01020304"))]
        assert report["decoded"]["reason"] == "malformed"

    @LO
    def test_an_ipv6_header_ends_where_it_says(self) -> None:
        """Bytes behind its own length are not sent, and not judged."""
        with _receiver(6) as sock:
            report = _sent(_to(sock), "--option", f"0000 0104 00000000 1f06 c822 {C4}")

            data, ancillary, _ = _received(sock)

        assert data == b"hello"
        assert ancillary == [(41, IPV6_DSTOPTS, _bytes("1100 0104 00000000"))]
        assert report["decoded"]["reason"] == "absent"

    @LO
    @pytest.mark.parametrize("outer", [4, 6])
    def test_an_opp_header_is_sent_as_given(self, outer: int) -> None:
        """With --dialect opp the bytes are that header, here one of an impossible length."""
        inet = socket.AF_INET if outer == 4 else socket.AF_INET6
        with _receiver(outer) as udp, socket.socket(inet, socket.SOCK_RAW, 248) as sock:
            sock.settimeout(10)
            report = _sent(_to(udp), "--dialect", "opp", "--option", "10110003")

            data = sock.recv(65536)

        assert data[20 if outer == 4 else 0 :].startswith(b"\x10\x11\x00\x03")
        assert report["decoded"]["rule_text"] == "opp length does not fit"
        assert report["decoded"]["expect"]["stripped"] is None

    @LO
    def test_no_bytes_are_no_option(self) -> None:
        """An option given as nothing is not built in its place."""
        with _receiver(4) as sock:
            report = _sent(_to(sock), *_arguments("ipo", 4), "--option", "")

            _, ancillary, _ = _received(sock)

        assert ancillary == []
        assert report["decoded"]["reason"] == "absent"

    @LO
    def test_a_payload_header_is_sent_as_given(self) -> None:
        """Half a PROXY header is a payload like any other to the kernel."""
        with _receiver(4) as sock:
            report = _sent(_to(sock), "--header", SIGNATURE, "--payload-hex", "2112")

            data = sock.recv(100)

        assert data == _bytes(SIGNATURE + "2112")
        assert report["decoded"]["rule_text"] == "PROXY header shorter than 16 bytes"

    @LO
    def test_two_claims_can_be_made_at_once(self) -> None:
        """An option as given beside a header that is built: here they disagree."""
        with _receiver(4) as sock:
            report = _sent(_to(sock), "--option", "1f08 0001 01020304", *_arguments("ppv2", 4))

            data, ancillary, _ = _received(sock)

        assert data.startswith(_bytes(SIGNATURE))
        assert ancillary == [(0, IP_RECVOPTS, _bytes("1f08 0001 01020304"))]
        assert report["decoded"]["reason"] == "conflict"

    @LO
    def test_a_proxy_can_speak_for_itself(self) -> None:
        """--local alone sends the header of a health check."""
        with _receiver(4) as sock:
            report = _sent(_to(sock), "--local", "--standalone")

            data = sock.recv(100)

        assert data == _bytes(SIGNATURE + "20000000")
        assert (report["dialect"], report["decoded"]["reason"]) == ("ppv2", "local")


class TestSending:
    """How many, from where, and what comes back."""

    @LO
    def test_a_standalone_datagram_is_empty(self) -> None:
        """It carries the option and no payload, as balancers send it when there is no room."""
        with _receiver(4) as sock:
            _sent(_to(sock), "--dialect", "ipo", "--client", CLIENT[4], "--standalone")

            data, ancillary, _ = _received(sock)

        assert data == b""
        assert ancillary == [(0, IP_RECVOPTS, _bytes(f"1f08 c822 {C4}"))]

    @LO
    @pytest.mark.parametrize("dialect", ["ipo", "opp"])
    def test_all_of_them_are_sent(self, dialect: str) -> None:
        """--count datagrams leave, all from one port."""
        with (
            _receiver(4) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_RAW, 248) as raw,
        ):
            sock = udp if dialect == "ipo" else raw
            sock.settimeout(10)
            report = _sent(_to(udp), *_arguments(dialect, 4), "--count", "5")

            datagrams = {sock.recv(100)[28 if dialect == "opp" else 0 :] for _ in range(5)}
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(100)

        assert report["sent"] == 5
        assert len(datagrams) == 1

    @LO
    @pytest.mark.parametrize("dialect", ["ipo", "opp", "ppv2"])
    @pytest.mark.parametrize("outer", [4, 6])
    def test_the_sender_can_be_chosen(self, dialect: str, outer: int) -> None:
        """--bind is where the datagrams come from, UDP port and opp's IP address alike."""
        host = SENDERS[outer]
        text = f"[{host}]:4000" if outer == 6 else f"{host}:4000"
        inet = socket.AF_INET if outer == 4 else socket.AF_INET6
        with _receiver(outer) as udp, socket.socket(inet, socket.SOCK_RAW, 248) as raw:
            report = _sent(_to(udp), *_arguments(dialect, 4), "--bind", text)

            sock = raw if dialect == "opp" else udp
            sock.settimeout(10)
            assert sock.recvfrom(100)[1][0] == host

        expect = report["decoded"]["expect"]
        assert report["from"] == [host, 4000]
        assert (expect["outer_src"], expect["outer_sport"]) == (host, 4000)

    @LO
    def test_an_empty_host_is_this_machine(self) -> None:
        """The report says where the kernel sent it."""
        assert _sent(":9", "--dialect", "none")["to"] == ["127.0.0.1", 9]

    @LO
    @pytest.mark.parametrize("dialect", ["ppv2", "opp"])
    def test_replies_are_shown(self, dialect: str) -> None:
        """With --wait the answers of a server are told, as text where they are text."""
        inet = socket.AF_INET
        with _receiver(4) as udp, socket.socket(inet, socket.SOCK_RAW, 248) as raw:
            command = [sys.executable, "-m", "uoa", "send", _to(udp), *_arguments(dialect, 4)]
            command += ["--count", "2", "--wait", "60", "--bind", "10.1.0.5:4000"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
                sock = raw if dialect == "opp" else udp
                sock.settimeout(10)
                sock.recv(1000)
                udp.sendto(b"client known\n", ("10.1.0.5", 4000))
                sock.recv(1000)
                udp.sendto(b"\x1b[2J\xff", ("10.1.0.5", 4000))
                out, _ = process.communicate(timeout=60)

        assert process.returncode == 0
        assert out.endswith("reply    13 bytes: client known\nreply    5 bytes: 1b5b324aff\n")

    @LO
    def test_silence_is_told(self) -> None:
        """A server that does not answer within the time is no error."""
        with _receiver(4) as sock:
            done = _uoa(_to(sock), "--dialect", "none", "--wait", "0.01")

        assert done.returncode == 0
        assert done.stdout.endswith("reply    none within 0.01 s\n")

    @LO
    @pytest.mark.parametrize("arguments", [[], ["--count", "3"], ["--wait", "60"]])
    def test_a_closed_port_is_told(self, arguments: list[str]) -> None:
        """The kernel's ICMP error ends the wait, and keeps no datagram from being sent."""
        done = _uoa("10.1.0.9:9", "--dialect", "none", *arguments)

        assert done.returncode == 0
        assert done.stdout.endswith("reply    nobody listens there (ICMP port unreachable)\n")

    @LO
    def test_the_report_is_readable(self) -> None:
        """What was sent, the packet, and what the parser makes of it, line by line."""
        with _receiver(4) as sock:
            to = _to(sock)
            done = _uoa(to, *_arguments("spp", 4), "--bind", "10.1.0.5:4000")

        sent, packet, *rest = done.stdout.splitlines()
        assert sent == "sent     1 datagram with a payload of 43 bytes, dialect spp"
        assert packet.startswith("packet   45000047")
        assert rest == [
            f"outer    10.1.0.5:4000 -> {to}",
            "payload  43 bytes, 38 of them a header",
            "dialect  spp",
            "client   203.0.113.77:51234",
            "vip      198.51.100.10:443",
            "verdict  found",
            "rule     4.2 row 26: a claim, or several that agree",
        ]

    @LO
    def test_the_report_is_one_document(self) -> None:
        """--json has a version, what was sent and what came back."""
        with _receiver(4) as sock:
            report = _sent(_to(sock), *_arguments("ipo", 4), "--bind", "10.1.0.5:4000")
            to = list(sock.getsockname())

        decoded, packet = report.pop("decoded"), report.pop("packet")
        assert report == {
            "schema": 1,
            "sent": 1,
            "from": ["10.1.0.5", 4000],
            "to": to,
            "dialect": "ipo",
            "option": f"1f08c822{C4}",
            "opp": "",
            "header": "",
            "payload_length": 5,
            "refused": False,
            "waited": 0.0,
            "replies": [],
        }
        assert packet.startswith("4700")
        assert (decoded["rule"], decoded["outer_dst"]) == ("4.2 row 26", "10.1.0.9")


def _without_raw() -> None:
    """Take the right to send options from the program that is about to start."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_CAPBSET_DROP, CAP_NET_RAW, 0, 0, 0) == 0


class TestRefused:
    """What the kernel does not send, and what makes no sense."""

    @LO
    @pytest.mark.parametrize("outer", [4, 6])
    @pytest.mark.parametrize(
        ("dialect", "what"), [("ipo", "IP options need"), ("opp", "protocol 248 needs")]
    )
    def test_a_missing_capability_is_named(self, outer: int, dialect: str, what: str) -> None:
        """EINVAL of IPv4 and EPERM of IPv6 mean the same, and have the same ways out."""
        with _receiver(outer) as sock:
            message = _error(_to(sock), *_arguments(dialect, 4), preexec_fn=_without_raw)

        assert message == (
            f"uoa: send: {what} CAP_NET_RAW: be root, or run inside `unshare -Urn`; "
            "or use --dialect ppv2, which needs no privilege\n"
        )

    @LO
    @pytest.mark.parametrize("dialect", ["ppv2", "spp", "none"])
    def test_payload_dialects_need_no_capability(self, dialect: str) -> None:
        """What stands in the payload is an ordinary datagram."""
        with _receiver(4) as sock:
            done = _uoa(_to(sock), *_arguments(dialect, 4), preexec_fn=_without_raw)

            assert done.returncode == 0
            assert sock.recv(100).endswith(b"query")

    @LO
    @pytest.mark.parametrize(
        ("outer", "option"),
        [(4, "1f0000"), (4, "1f07"), (4, "01011f"), (6, "1102"), (6, "11"), (6, "1101 00" * 2)],
    )
    def test_options_that_the_kernel_refuses_are_named(self, outer: int, option: str) -> None:
        """The bytes are repeated; `uoa decode` judges them without a kernel in between."""
        with _receiver(outer) as sock:
            message = _error(_to(sock), "--option", option)

        digits = option.replace(" ", "")
        assert message.startswith(f"uoa: send: option {digits}: the kernel refuses to send it: ")
        assert "uoa decode" in message

    @LO
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--option", "01" * 41], "44 bytes do not fit an IPv4 header: 40 do"),
            (
                ["--dialect", "none", "--payload-hex", "00" * 65508],
                "the packet would have 65536 bytes: shorten",
            ),
            (
                ["--payload-hex", "00" * 65500, "--option", "01" * 8],
                "the packet would have 65536 bytes: shorten",
            ),
            (["--dialect", "none", "--bind", "10.9.9.9:1"], "from 10.9.9.9:1: Cannot assign"),
            (["--dialect", "none", "--bind", "[::1]:1"], "from [::1]:1: Address family"),
        ],
    )
    def test_what_cannot_be_sent_is_an_error(self, arguments: list[str], message: str) -> None:
        """One line on stderr says what, and what to do."""
        assert message in _error("10.1.0.9:9", *arguments)

    @LO
    def test_a_host_without_a_route_is_an_error(self) -> None:
        """The kernel's reason is passed on with the address."""
        assert "to 192.0.2.1:9: Network is unreachable" in _error("192.0.2.1:9", "--local")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "required: HOST:PORT"),
            (["10.0.0.1:9"], "--dialect: name one, or give --option, --header or --local"),
            (["10.0.0.1", "--local"], "'10.0.0.1' is not HOST:PORT"),
            (["10.0.0.1:9", "--dialect", "ipo"], "--client: dialect ipo names one"),
            (["10.0.0.1:9", "--dialect", "ppv2", "--option", ""], "--client: dialect ppv2 names"),
            (["10.0.0.1:9", "--dialect", "ipo", "--local"], "--local: dialect ipo has no such"),
            (["10.0.0.1:9", "--dialect", "toa"], "invalid choice: 'toa'"),
            (["10.0.0.1:9", "--local", "--header", "00"], "not allowed with argument --local"),
            (["10.0.0.1:9", "--option", "1"], "--option: '1': an odd number of hex digits"),
            (["10.0.0.1:9", "--header", "zz"], "--header: 'zz': more than hex digits"),
            (["10.0.0.1:9", "--local", "--count", "0"], "--count: 0 is not one of 1 to"),
            (["10.0.0.1:9", "--local", "--vni", "4294967296"], "--vni: 4294967296 is not one of"),
            (["10.0.0.1:9", "--local", "--wait", "-1"], "--wait: -1 is not one of"),
            (["10.0.0.1:9", "--local", "--wait", "nan"], "--wait: nan is not one of"),
            (["10.0.0.1:9", "--local", "--wait", "x"], "--wait: invalid number value: 'x'"),
        ],
    )
    def test_wrong_arguments_are_usage_errors(self, arguments: list[str], message: str) -> None:
        """They are named on stderr, with status 2, and nothing is sent."""
        assert message in _error(*arguments, status=2)
