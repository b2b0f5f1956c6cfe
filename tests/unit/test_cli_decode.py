# SPDX-License-Identifier: MIT
"""`uoa decode`: hex, captures of every kind that tcpdump writes, and what is none."""

from __future__ import annotations

import json
import os
import pty
import random
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.capability import need
from uoa import wire

PEER, SERVER = ("10.0.0.5", 40001), ("10.0.0.9", 53)
PEER6, SERVER6 = ("2001:db8:a::5", 40001), ("2001:db8:a::9", 53)
CLIENT, VIP = ("203.0.113.77", 51234), ("198.51.100.10", 443)

IPO = wire.build("ipo", CLIENT, src=PEER, dst=SERVER, payload=b"query")
IPO6 = wire.build("ipo", CLIENT, src=PEER6, dst=SERVER6, payload=b"query")
PLAIN = wire.build(None, src=PEER, dst=SERVER, payload=b"query")
BAD = IPO.replace(b"\x1f\x08", b"\x1f\x07")


def _uoa(
    *arguments: str, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "uoa", "decode", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env=os.environ | (environment or {}),
    )


def _text(*arguments: str, stdin: bytes = b"") -> str:
    """Return what it prints when all is well."""
    done = _uoa(*arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def _json(*arguments: str, stdin: bytes = b"") -> dict[str, Any]:
    """Return the document that it prints when all is well."""
    document: dict[str, Any] = json.loads(_text("--json", *arguments, stdin=stdin))
    return document


def _error(*arguments: str, stdin: bytes = b"", status: int = 1) -> str:
    """Return the message of a failure that prints nothing else."""
    done = _uoa(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (status, b"")
    return done.stderr.decode()


# ---- Captures, byte by byte --------------------------------------------------------


def _file_header(link: int, order: str = "<", *, nano: bool = False) -> bytes:
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)


def _record(frame: bytes, order: str = "<", length: int | None = None) -> bytes:
    size = len(frame) if length is None else length
    return struct.pack(order + "IIII", 1700000000, 5, len(frame), size) + frame


def _capture(link: int, *frames: bytes, order: str = "<", nano: bool = False) -> bytes:
    records = b"".join(_record(frame, order) for frame in frames)
    return _file_header(link, order, nano=nano) + records


MACS = bytes.fromhex("02000000000102000000 0002".replace(" ", ""))
IPV4, IPV6, ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
SLL = bytes.fromhex("0000 0001 0006 020000000001 0000".replace(" ", ""))
SLL2 = bytes.fromhex("0000 00000002 0001 00 06 0200000000010000".replace(" ", ""))

RAW, ETHERNET = 101, 1

# Link type, the same two packets (IPv4, IPv6) in its frames, and the byte order of the file.
FRAMES = {
    "null-little-linux": (0, b"\2\0\0\0" + IPO, b"\x0a\0\0\0" + IPO6, "<"),
    "null-big-macos": (0, b"\0\0\0\2" + IPO, b"\0\0\0\x1e" + IPO6, ">"),
    "null-freebsd": (0, b"\2\0\0\0" + IPO, b"\x1c\0\0\0" + IPO6, "<"),
    "loop-openbsd": (108, b"\0\0\0\2" + IPO, b"\0\0\0\x18" + IPO6, "<"),
    "ethernet": (ETHERNET, MACS + IPV4 + IPO, MACS + IPV6 + IPO6, "<"),
    "ethernet-big": (ETHERNET, MACS + IPV4 + IPO, MACS + IPV6 + IPO6, ">"),
    "ethernet-with-check-sequence": (
        ETHERNET | 4 << 28 | 1 << 26,
        MACS + IPV4 + IPO + b"\1\2\3\4",
        MACS + IPV6 + IPO6 + b"\1\2\3\4",
        "<",
    ),
    "vlan": (
        ETHERNET,
        MACS + b"\x81\x00\x00\x07" + IPV4 + IPO,
        MACS + b"\x88\xa8\x00\x07\x81\x00\x00\x08" + IPV6 + IPO6,
        "<",
    ),
    "raw": (RAW, IPO, IPO6, "<"),
    "raw-12": (12, IPO, IPO6, "<"),
    "raw-14": (14, IPO, IPO6, "<"),
    "ipv4": (228, IPO, IPO, "<"),
    "ipv6": (229, IPO6, IPO6, ">"),
    "linux-sll": (113, SLL + IPV4 + IPO, SLL + IPV6 + IPO6, "<"),
    "linux-sll-vlan": (
        113,
        SLL + b"\x81\x00\x00\x07" + IPV4 + IPO,
        SLL + IPV6 + IPO6,
        "<",
    ),
    "linux-sll2": (276, IPV4 + SLL2 + IPO, IPV6 + SLL2 + IPO6, ">"),
    "linux-sll2-vlan": (
        276,
        b"\x81\x00" + SLL2 + b"\x00\x07" + IPV4 + IPO,
        IPV6 + SLL2 + IPO6,
        "<",
    ),
}


class TestHex:
    """A packet in hex digits."""

    def test_a_packet_is_shown_in_full(self) -> None:
        """All that it tells is printed, and the rule that decided."""
        packet = wire.build("bd31", CLIENT, vip=VIP, src=PEER, dst=SERVER, payload=b"query")

        assert _text(packet.hex()).splitlines() == [
            "outer    10.0.0.5:40001 -> 10.0.0.9:53",
            "payload  5 bytes",
            "dialect  bd31",
            "client   203.0.113.77:51234",
            "vip      198.51.100.10:443",
            "verdict  found",
            "rule     4.2 row 26: a claim, or several that agree",
        ]

    def test_the_vni_is_shown(self) -> None:
        """bd29 carries no VIP but a network identifier."""
        packet = wire.build("bd29", CLIENT, vni=4711, src=PEER, dst=SERVER)

        assert "\nvni      4711\n" in _text(packet.hex())

    def test_ipv6_hosts_are_in_brackets(self) -> None:
        """Host and port of IPv6 addresses stay apart."""
        packet = wire.build("ipo", PEER6, src=PEER6, dst=SERVER6)
        text = _text(packet.hex())

        assert "outer    [2001:db8:a::5]:40001 -> [2001:db8:a::9]:53\n" in text
        assert "client   [2001:db8:a::5]:40001\n" in text

    def test_the_header_in_the_payload_is_counted(self) -> None:
        """What a receiver has to take off the payload is a number of bytes."""
        packet = wire.build("spp", CLIENT, vip=VIP, src=PEER, dst=SERVER, payload=b"query")

        assert "payload  43 bytes, 38 of them a header\n" in _text(packet.hex())

    def test_opp_says_what_is_handed_on(self) -> None:
        """The header is taken out where it can be, and else the packet is left alone."""
        packet = wire.build("opp", CLIENT, src=PEER, dst=SERVER, payload=b"query")
        unusable = packet.replace(b"\x10\x11\x00\x0c", b"\x10\x11\x00\x03")

        assert "opp      header taken out: 33 bytes are handed on\n" in _text(packet.hex())
        assert "opp      header stays: the packet must be left alone\n" in _text(unusable.hex())

    @pytest.mark.parametrize(
        ("packet", "verdict", "rule"),
        [
            (b"", "truncated", "4.2 row 1: fewer bytes than an IPv4 header"),
            (b"\x50", "not_ip", "4.2 row 2: version nibble neither 4 nor 6"),
            (IPO[:-1], "truncated", "4.2 row 4: buffer shorter than total length"),
            (PLAIN, "absent", "4.2 row 23: no claim of an enabled dialect"),
            (BAD, "malformed", "4.3: address option of an undefined length"),
        ],
    )
    def test_the_rule_that_decided_is_named(self, packet: bytes, verdict: str, rule: str) -> None:
        """A packet that tells nobody's address is an answer too, with its reason."""
        assert _text(packet.hex()).endswith(f"verdict  {verdict}\nrule     {rule}\n")

    def test_spaces_and_colons_are_ignored(self) -> None:
        """Hex comes from many tools."""
        expected = _text(IPO.hex())

        assert _text(IPO.hex(" ")) == expected
        assert _text(IPO.hex(":").upper()) == expected
        assert _text("-", stdin=IPO.hex(" ", 16).replace(" ", "\n").encode()) == expected

    def test_the_offsets_of_tcpdump_are_ignored(self) -> None:
        """What `tcpdump -x` prints can be pasted."""
        rows = [IPO[at : at + 16].hex(" ", 2) for at in range(0, len(IPO), 16)]
        dump = "".join(f"\t0x{16 * at:04x}:  {row}\n" for at, row in enumerate(rows))

        assert _text("-", stdin=dump.encode()) == _text(IPO.hex())

    def test_other_text_is_an_error(self) -> None:
        """What is neither a file nor hex is named, with what is wrong with it."""
        assert _error("capture.pcap") == (
            "uoa: decode: 'capture.pcap': no such file, and no packet in hex: "
            "more than hex digits and colons\n"
        )
        assert "an odd number of hex digits" in _error("450")
        assert "'-': more than hex digits" in _error("-", stdin=b"\xff\xfe")

    def test_endless_input_is_refused(self) -> None:
        """No packet has a million hex digits, so no more is read."""
        assert "more than 1048576 characters" in _error("-", stdin=b"45" * 1_000_000)


class TestOptions:
    """--dialects, --trust and --json."""

    def test_only_named_dialects_are_looked_for(self) -> None:
        """Without its dialect the option is nothing special."""
        assert "verdict  found\n" in _text(IPO.hex(), "--dialects", "bd,ipo")
        assert "verdict  absent\n" in _text(IPO.hex(), "--dialects", "bd,opp")

    def test_only_trusted_senders_are_believed(self) -> None:
        """--trust may be repeated and takes lists; without it everybody is believed."""
        assert "rule     4.2 row 21: sender outside" in _text(IPO.hex(), "--trust", "192.0.2.0/24")
        for trust in (
            ["--trust", "192.0.2.0/24,10.0.0.5"],
            ["--trust", "::/0", "--trust=10.0.0.5"],
        ):
            assert "verdict  found\n" in _text(IPO.hex(), *trust)
        assert "verdict  found\n" in _text(IPO.hex(), "--trust", "*")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "required: HEX|FILE.pcap"),
            (["00", "--dialects", "toa"], "argument --dialects: dialects: 'toa' is none of ipo,"),
            (["00", "--trust", "10.0.0.1/8"], "argument --trust: trust: '10.0.0.1/8' has bits"),
            (["00", "--trust", "example.org"], "argument --trust: trust: 'example.org' is not"),
        ],
    )
    def test_wrong_arguments_are_usage_errors(self, arguments: list[str], message: str) -> None:
        """They are named on stderr, with status 2."""
        assert message in _error(*arguments, status=2)

    def test_json_tells_of_one_packet(self) -> None:
        """The document has the `expect` object of a vector, and what decided."""
        assert _json(IPO.hex()) == {
            "schema": 1,
            "packets": [
                {
                    "number": 1,
                    "captured": len(IPO),
                    "length": len(IPO),
                    "reason": "found",
                    "rule": "4.2 row 26",
                    "rule_text": "a claim, or several that agree",
                    "outer_src": "10.0.0.5",
                    "outer_sport": 40001,
                    "outer_dst": "10.0.0.9",
                    "outer_dport": 53,
                    "payload_length": 5,
                    "payload_strip": 0,
                    "expect": wire.decode(IPO).as_dict(),
                }
            ],
            "reasons": {"found": 1},
            "error": None,
        }

    def test_json_says_null_for_what_is_not_known(self) -> None:
        """A packet that is no UDP has no outer ports."""
        (packet,) = _json("45")["packets"]

        assert packet["expect"] == {"found": False, "reason": "truncated"}
        assert (packet["outer_src"], packet["outer_sport"], packet["payload_length"]) == (
            None,
            None,
            None,
        )


class TestCapture:
    """Files of tcpdump."""

    @pytest.mark.parametrize(("link", "ipv4", "ipv6", "order"), FRAMES.values(), ids=FRAMES)
    def test_every_link_type_is_read(
        self, tmp_path: Path, link: int, ipv4: bytes, ipv6: bytes, order: str
    ) -> None:
        """The IP packet is found behind each link header."""
        path = tmp_path / "x.pcap"
        path.write_bytes(_capture(link, ipv4, ipv6, order=order))

        document = _json(str(path))

        assert [packet["number"] for packet in document["packets"]] == [1, 2]
        assert document["reasons"] == {"found": 2}
        for packet in document["packets"]:
            assert packet["expect"]["real_addr"] == CLIENT[0]

    @pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
    @pytest.mark.parametrize("nano", [False, True], ids=["micro", "nano"])
    def test_every_byte_order_is_read(self, tmp_path: Path, order: str, nano: bool) -> None:
        """Files of little- and big-endian machines, with times of either precision, are alike."""
        path = tmp_path / "x.pcap"
        path.write_bytes(_capture(RAW, IPO, PLAIN, order=order, nano=nano))

        assert _json(str(path)) == _json("-", stdin=_capture(RAW, IPO, PLAIN))

    @pytest.mark.parametrize(
        ("link", "frame", "text"),
        [
            (ETHERNET, MACS + ARP + IPO, "EtherType 0x0806 is not IP"),
            (ETHERNET, MACS + b"\x00\x26\x42\x42\x03", "EtherType 0x0026 is not IP"),
            (ETHERNET, MACS + b"\x81\x00\x00\x07" + ARP, "EtherType 0x0806 is not IP"),
            (ETHERNET, MACS + b"\x08", "the frame is shorter than its link header"),
            (ETHERNET, MACS + b"\x81\x00\x00", "the frame is shorter than its link header"),
            (0, b"\x07\0\0\0" + IPO, "address family 7 is not IP"),
            (0, b"\2\0\0", "the frame is shorter than its link header"),
            (108, b"\2\0\0\0" + IPO, "address family 33554432 is not IP"),
            (113, SLL + ARP, "EtherType 0x0806 is not IP"),
            (113, SLL, "the frame is shorter than its link header"),
            (276, ARP + SLL2, "EtherType 0x0806 is not IP"),
            (276, IPV4 + SLL2[:-1], "the frame is shorter than its link header"),
            (276, b"", "the frame is shorter than its link header"),
        ],
    )
    def test_frames_without_ip_are_not_ip(
        self, tmp_path: Path, link: int, frame: bytes, text: str
    ) -> None:
        """The link header says so, and no byte behind it is taken for an IP header."""
        path = tmp_path / "x.pcap"
        path.write_bytes(_capture(link, frame))

        assert _text(str(path)) == f"verdict  not_ip\nrule     link layer: {text}\n"
        assert _json(str(path))["packets"][0]["expect"] == {"found": False, "reason": "not_ip"}

    def test_several_packets_are_a_table(self, tmp_path: Path) -> None:
        """A line for each, and how often each verdict fell."""
        path = tmp_path / "x.pcap"
        path.write_bytes(_capture(RAW, IPO, PLAIN, IPO6, BAD, IPO))

        header, *rows, summary = _text(str(path)).splitlines()

        assert header.split() == ["number", "verdict", "dialect", "client", "outer", "rule"]
        assert rows[0].split()[:4] == ["1", "found", "ipo", "203.0.113.77:51234"]
        assert rows[1].split()[:3] == ["2", "absent", "10.0.0.5:40001"]
        assert rows[3].endswith("4.3: address option of an undefined length")
        assert summary == "5 packets: 3 found, 1 absent, 1 malformed"
        client = header.index("client")
        assert rows[2][client:].startswith("203.0.113.77:51234")

    def test_a_single_packet_is_shown_in_full(self, tmp_path: Path) -> None:
        """A table of one line would hide what there is to know."""
        path = tmp_path / "x.pcap"
        path.write_bytes(_capture(RAW, IPO))

        assert _text(str(path)) == _text(IPO.hex())

    def test_a_capture_of_nothing_is_an_answer(self, tmp_path: Path) -> None:
        """tcpdump that saw no packet writes a header only."""
        path = tmp_path / "x.pcap"
        path.write_bytes(_capture(RAW))

        assert _text(str(path)) == "0 packets\n"
        assert _json(str(path)) == {"schema": 1, "packets": [], "reasons": {}, "error": None}

    def test_a_capture_comes_on_stdin_too(self) -> None:
        """`tcpdump -w - | uoa decode -` needs no file."""
        assert _json("-", stdin=_capture(RAW, IPO, IPO6))["reasons"] == {"found": 2}

    def test_a_short_snapshot_is_named(self, tmp_path: Path) -> None:
        """A packet that tcpdump cut is truncated, and the way out is another capture."""
        path = tmp_path / "x.pcap"
        path.write_bytes(_file_header(RAW) + _record(IPO[:30], length=len(IPO)))

        assert _text(str(path)).endswith(
            "rule     4.2 row 4: buffer shorter than total length "
            f"(captured 30 of {len(IPO)} bytes: tcpdump -s 0)\n"
        )

    def test_a_reader_that_leaves_ends_it(self, tmp_path: Path) -> None:
        """`uoa decode … | head` is no failure that needs words."""
        path = tmp_path / "x.pcap"
        path.write_bytes(_capture(RAW, *[IPO] * 5000))
        with subprocess.Popen(
            [sys.executable, "-m", "uoa", "decode", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""


def _on_terminal(arguments: list[str], stdin: bytes, path: str = "") -> str:
    """Return what it prints to a terminal 200 columns wide, with `path` to import from first."""
    need("pty")
    leader, follower = pty.openpty()
    environment = os.environ | {"COLUMNS": "200", "TERM": "xterm"}
    environment["PYTHONPATH"] = os.pathsep.join([path, environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "uoa", "decode", *arguments],
        input=stdin,
        stdout=follower,
        check=False,
        timeout=60,
        env=environment,
    )
    os.close(follower)
    assert done.returncode == 0
    parts = []
    with os.fdopen(leader, "rb", buffering=0) as terminal:
        while True:
            try:
                part = terminal.read(65536)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            parts.append(part)
    return b"".join(parts).decode()


# What _table.py uses of rich, so that it is not needed here: each cell says who drew it.
FAKE_RICH = {
    "__init__.py": "",
    "console.py": """
class Console:
    def __init__(self, highlight):
        assert highlight is False
    def print(self, table):
        for row in table.rows:
            print(*row)
""",
    "table.py": """
class Table:
    def __init__(self, *names, box, header_style):
        self.rows = [names]
    def add_row(self, *cells):
        self.rows.append(cells)
""",
    "text.py": """
def Text(cell):
    return f"rich:{cell}"
""",
}


class TestTable:
    """Who draws the table of several packets."""

    @pytest.fixture
    def capture(self, tmp_path: Path) -> Path:
        """Make a capture of three packets."""
        path = tmp_path / "x.pcap"
        path.write_bytes(_capture(RAW, IPO, IPO6, PLAIN))
        return path

    @pytest.fixture
    def rich(self, tmp_path: Path) -> str:
        """Return where a package `rich` can be imported from."""
        folder = tmp_path / "site" / "rich"
        folder.mkdir(parents=True)
        for name, text in FAKE_RICH.items():
            (folder / name).write_text(text, encoding="utf-8")
        return str(folder.parent)

    def test_a_terminal_gets_all_facts(self, capture: Path) -> None:
        """With or without rich, whichever is installed here, no address or verdict is lost."""
        text = _on_terminal([str(capture)], b"")

        assert text.count("203.0.113.77:51234") == 2
        assert "[2001:db8:a::5]:40001 -> [2001:db8:a::9]:53" in text
        assert "4.2 row 23: no claim of an enabled dialect" in text
        assert text.rstrip().endswith("3 packets: 2 found, 1 absent")

    def test_rich_draws_on_a_terminal(self, capture: Path, rich: str) -> None:
        """Its cells are text objects: hosts in brackets are no markup."""
        text = _on_terminal([str(capture)], b"", rich)

        assert "rich:[2001:db8:a::5]:40001 -> [2001:db8:a::9]:53 rich:4.2 row 26" in text
        assert "\nnumber verdict dialect" in "\n" + text
        assert text.count("rich:203.0.113.77:51234") == 2

    def test_rich_does_not_draw_what_comes_over_time(self, capture: Path, rich: str) -> None:
        """Rows of `tcpdump -w - | uoa decode -` are printed as they come."""
        assert "rich:" not in _on_terminal(["-"], capture.read_bytes(), rich)

    def test_rich_does_not_draw_into_a_pipe(self, capture: Path, rich: str) -> None:
        """Other programs read plain lines."""
        path = os.pathsep.join([rich, os.environ.get("PYTHONPATH", "")])

        done = _uoa(str(capture), environment={"PYTHONPATH": path})

        assert done.stdout.startswith(b"number  verdict       dialect  client ")
        assert b"rich:" not in done.stdout


class TestUnreadable:
    """Files that end early, lie, or are something else."""

    @pytest.mark.parametrize("cut", [1, 4, 15])
    def test_a_record_header_that_ends_early_is_reported(self, tmp_path: Path, cut: int) -> None:
        """What stood before it is shown, and the status is 1."""
        self._truncated(tmp_path, _capture(RAW, IPO, IPO6) + _record(IPO)[:cut], 2)

    @pytest.mark.parametrize("cut", [16, 17, 16 + len(IPO) - 1])
    def test_a_frame_that_ends_early_is_reported(self, tmp_path: Path, cut: int) -> None:
        """What stood before it is shown, and the status is 1."""
        self._truncated(tmp_path, _capture(RAW, IPO) + _record(IPO)[:cut], 1)

    def test_the_error_comes_last(self, tmp_path: Path) -> None:
        """Where both outputs go to one place, the packets stand before what ended them."""
        path = tmp_path / "x.pcap"
        path.write_bytes(_capture(RAW, IPO, IPO6) + b"?")

        done = subprocess.run(
            [sys.executable, "-m", "uoa", "decode", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=60,
            env={name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"},
        )

        assert done.stdout.startswith(b"number ")
        assert done.stdout.endswith(b"the capture was cut short\n")

    @staticmethod
    def _truncated(tmp_path: Path, data: bytes, whole: int) -> None:
        path = tmp_path / "x.pcap"
        path.write_bytes(data)
        message = f"{str(path)[:57]}" if len(str(path)) > 60 else str(path)

        plain, document = _uoa(str(path)), _uoa(str(path), "--json")

        assert (plain.returncode, document.returncode) == (1, 1)
        assert plain.stdout.count(b"203.0.113.77:51234") == whole
        found = json.loads(document.stdout)
        assert found["reasons"] == {"found": whole}
        assert f"the file ends within record {whole + 1}" in found["error"]
        assert plain.stderr == document.stderr == f"uoa: {found['error']}\n".encode()
        assert message in found["error"]

    @pytest.mark.parametrize("size", [4, 5, 23])
    def test_a_header_that_ends_early_is_an_error(self, tmp_path: Path, size: int) -> None:
        """Nothing can be read from it, so nothing is printed but that."""
        path = tmp_path / "x.pcap"
        path.write_bytes(_file_header(RAW)[:size])

        assert "the file ends within its header" in _error(str(path))
        assert "the file ends within its header" in _error(str(path), "--json")

    def test_pcapng_is_refused_with_a_way_out(self, tmp_path: Path) -> None:
        """The message has the two commands that convert it."""
        path = tmp_path / "x.pcapng"
        path.write_bytes(bytes.fromhex("0a0d0d0a 1c000000 4d3c2b1a 0100 0000".replace(" ", "")))

        message = _error(str(path))

        assert "editcap -F pcap in.pcapng out.pcap" in message
        assert "tcpdump -r in.pcapng -w out.pcap" in message

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "no pcap file: it begins with nothing"),
            (b"\x1f\x8b\x08\x00", "no pcap file: it begins with 1f8b0800"),
            (IPO.hex().encode(), "no pcap file: it begins with 34373030"),
            (_file_header(RAW).replace(b"\2\0\4\0", b"\3\0\0\0"), "pcap version 3 is not known"),
            (_file_header(105), "link type 105 is not read"),
        ],
    )
    def test_other_files_are_errors(self, tmp_path: Path, data: bytes, message: str) -> None:
        """The message says what it is not, on stderr, with status 1."""
        path = tmp_path / "x"
        path.write_bytes(data)

        assert message in _error(str(path))

    def test_a_directory_is_an_error(self, tmp_path: Path) -> None:
        """The kernel's reason is passed on."""
        assert "Is a directory" in _error(str(tmp_path))

    def test_a_record_that_claims_too_much_is_not_believed(self, tmp_path: Path) -> None:
        """Four gigabytes are neither allocated nor waited for."""
        path = tmp_path / "x.pcap"
        huge = struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)
        path.write_bytes(_capture(RAW, IPO) + huge + IPO)
        limit = 512 << 20

        done = subprocess.run(
            [sys.executable, "-m", "uoa", "decode", str(path)],
            capture_output=True,
            check=False,
            timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )

        assert done.returncode == 1
        assert b"client   203.0.113.77:51234\n" in done.stdout
        assert b"record 2 claims 4294967295 bytes" in done.stderr

    def test_hostile_files_end_in_an_answer(self, tmp_path: Path) -> None:
        """Files with random damage are read or refused; none makes a traceback."""
        rng = random.Random(2051)
        good = [_capture(link, ipv4, ipv6) for link, ipv4, ipv6, _ in FRAMES.values()]
        path = tmp_path / "x.pcap"
        # In this process: several hundred files.
        script = (
            "import pathlib, sys\n"
            "from uoa.cli import main\n"
            "for line in sys.stdin:\n"
            f"    pathlib.Path({str(path)!r}).write_bytes(bytes.fromhex(line))\n"
            f"    assert main(['decode', '--json', {str(path)!r}]) in (0, 1)\n"
            "print('all answered', file=sys.stderr)\n"
        )
        cases = []
        for _ in range(1500):
            data = bytearray(rng.choice(good))
            for _ in range(rng.randint(1, 6)):
                data[rng.randrange(4, len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            cases.append(data[: rng.randint(24, len(data))].hex())

        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            input="\n".join(cases).encode(),
            capture_output=True,
            check=False,
            timeout=120,
        )

        assert done.returncode == 0
        assert done.stderr.decode().endswith("all answered\n")
        assert done.stdout.count(b'"schema": 1') > 500
