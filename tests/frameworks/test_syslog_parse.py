# SPDX-License-Identifier: MIT
"""`uoa.syslog.parse()`: messages of both RFCs, and whatever else arrives on port 514."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uoa.testing
from tests.senders import udp_socket
from uoa.syslog import Message, parse

_LARGEST: Final = 65507
_HEAD: Final = b"<34>1 2003-10-11T22:14:15.003Z host app 12 id "
_BSD: Final = b"<34>Oct 11 22:14:15 host "


class TestMessages:
    """What senders mean."""

    def test_rfc_5424(self) -> None:
        """All fields, escapes in structured data, the byte order mark in front of the text."""
        data = (
            b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 ID47 "
            rb'[x@32473 iut="3" path="C:\\" quote="a\"b\]"][empty@1]'
            b" \xef\xbb\xbfit's time\nto \xc3\xa4"
        )
        assert parse(data) == Message(
            text="it's time\nto ä",
            rfc=5424,
            facility=20,
            severity=5,
            timestamp=datetime(2003, 8, 24, 5, 14, 15, 3, timezone(timedelta(hours=-7))),
            hostname="192.0.2.1",
            app="myproc",
            procid="8710",
            msgid="ID47",
            structured_data={
                "x@32473.iut": "3",
                "x@32473.path": "C:\\",
                "x@32473.quote": 'a"b]',
            },
        )

    def test_rfc_5424_with_nothing_in_it(self) -> None:
        """What is `-` is None."""
        assert parse(b"<0>1 - - - - - -") == Message("", 5424, 0, 0)

    def test_rfc_3164(self) -> None:
        """The tag is the program, with its process; the time has no zone."""
        message = parse(b"<34>Oct 11 22:14:15 mymachine su[12]: 'su root' failed\nfor lonvick")
        assert message.timestamp is not None
        assert abs(message.timestamp - datetime.now()) < timedelta(days=190)
        assert message == Message(
            text="'su root' failed\nfor lonvick",
            rfc=3164,
            facility=4,
            severity=2,
            timestamp=datetime(message.timestamp.year, 10, 11, 22, 14, 15),
            hostname="mymachine",
            app="su",
            procid="12",
        )

    def test_rfc_3164_with_a_modern_timestamp(self) -> None:
        """rsyslog's format for forwarding has ISO 8601 where RFC 3164 has words."""
        message = parse(b"<13>2026-11-28T01:02:03.5+00:00 host tag: text")
        assert message.timestamp == datetime(2026, 11, 28, 1, 2, 3, 500000, UTC)
        assert (message.rfc, message.hostname, message.app) == (3164, "host", "tag")
        assert message.text == "text"

    def test_names_of_numbers(self) -> None:
        """Facility and severity have the names of syslog.conf."""
        names = [
            (message.facility_name, message.severity_name)
            for message in (parse(b"<%d>1 - - - - - -" % number) for number in range(192))
        ]
        assert names[0] == ("kern", "emerg")
        assert names[86] == ("authpriv", "info")
        assert names[191] == ("local7", "debug")
        assert len(set(names)) == 192
        assert (Message("x").facility_name, Message("x").severity_name) == (None, None)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"hello",
            b"<13>hello",
            b"<192>1 - - - - - -",
            b"<999>Oct 11 22:14:15 host su: text",
            b"<-1>Oct 11 22:14:15 host su: text",
            b"<+1>1 - - - - - -",
            b"<1\xd9\xa3>1 - - - - - -",
            b"<" + b"9" * 60000 + b">1 - - - - - -",
            b"<>1 - - - - - -",
            b"<13>2 - - - - - -",
            b"<13>1 - - -",
            b"<13>Xyz 11 22:14:15 host su: text",
            b"<13>Oct 41 22:14:15 host su: text",
            b"\xef\xbb\xbf<13>1 - - - - - -",
            b"\0" * 1000,
        ],
    )
    def test_what_is_no_message_is_text(self, data: bytes) -> None:
        """Nothing is known of it, and all of it is there."""
        assert parse(data) == Message(data.decode())

    def test_bytes_that_are_no_text_are_written_out(self) -> None:
        """Invalid UTF-8 does no harm, and can be printed."""
        message = parse(_BSD + b"tag: \xff\xfe\0x")
        assert message.text == "\\xff\\xfe\0x"
        assert parse(b"\xff").text == "\\xff"

    def test_a_message_is_what_its_sender_says(self) -> None:
        """A host name is no evidence of anything."""
        with uoa.testing.acting_as(uoa.testing.client("203.0.113.7")):
            assert parse(b"<34>1 - bank.example - - - - pay").hostname == "bank.example"


class TestHostile:
    """What nobody means well by."""

    @pytest.mark.parametrize(
        "data",
        [
            _HEAD + b"[a]" * 21800,
            _HEAD + b'[a b="' + b"\\" * 65000,
            _HEAD + b'[a b="' + b'\\"' * 32000,
            _HEAD + b"[a" + b' b="c"' * 10000 + b"]",
            _HEAD + b"[" * 65000,
            _HEAD + b"- " + b"\xff" * 65000,
            _HEAD[:-4] + b"i" * 65000,
            _BSD[:-5] + b"h" * 65000,
            _BSD[:-5] + b"h:" * 32000,
            _BSD + b" " * 65000 + b"\n",
            _BSD + b"tag" * 21000,
            _BSD + b"tag[" * 16000,
            _BSD + b"tag[1" + b"]" * 65000,
            b"<13>2026-11-28T01:02:03." + b"1" * 65000,
            b"<13>2026-11-28T01:02:03Z " + b"h:" * 32000,
            b"<13>" + b" " * 65000,
            b"<13>Oct " + b"1" * 65000,
            b"<13>1 " + b"1" * 65000,
            b"\n" * 65000,
        ],
        ids=range(19),
    )
    def test_no_message_takes_long(self, data: bytes) -> None:
        """64 KiB of the worst are parsed at once: time grows with length, not with its square."""
        parse(b"")
        begin = time.perf_counter()
        parse(data[:_LARGEST])
        assert time.perf_counter() - begin < 5

    @settings(max_examples=1000)
    @given(
        st.binary(max_size=300)
        | st.builds(lambda head, rest: head + rest, st.sampled_from([_HEAD, _BSD]), st.binary())
        | st.text(alphabet='<>1[]"\\ =-:@0\nOct\0\ufeffä٣').map(str.encode)
        | st.builds(lambda text: _HEAD + text.encode(), st.text(alphabet='[]"\\ =-@a\n\0\ufeffä٣'))
    )
    def test_whatever_comes_is_a_message(self, data: bytes) -> None:
        """No bytes raise, and what is said is in range."""
        message = parse(data)
        assert message.rfc in (None, 3164, 5424)
        assert (message.severity is None) is (message.rfc is None)
        assert message.rfc is not None or message == Message(message.text)
        assert isinstance(message.text, str)
        message.text.encode()
        assert message.severity is None or message.severity in range(8)
        assert message.facility is None or message.facility in range(24)


def _run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", script], capture_output=True, text=True
    )


class TestLibrary:
    """The extra."""

    def test_without_the_library_all_but_parsing_works(self) -> None:
        """serve() needs nothing; parse() says what to install."""
        result = _run(
            "import sys; sys.modules['syslogcef'] = None\n"
            "import uoa.syslog\n"
            "uoa.syslog.UDPServer(('127.0.0.1', 0), print, trust=[]).server_close()\n"
            "uoa.syslog.parse(b'<13>x')\n"
        )
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1] == (
            'ImportError: uoa.syslog.parse: syslog2cef is not installed: pip install "uoa[syslog]"'
        )

    def test_importing_it_warns_of_nothing(self) -> None:
        """Warnings are errors, and none comes."""
        result = _run("import uoa.syslog; print(uoa.syslog.parse(b'<13>1 - - - - - - hi').text)")
        assert (result.stdout, result.stderr) == ("hi\n", "")

    @pytest.mark.skipif(sys.version_info >= (3, 15), reason="its lark imports sre_parse")
    def test_other_parsers_are_used_in_the_same_way(self) -> None:
        """A collector with syslog-rfc5424-parser is ten lines."""
        with udp_socket("127.0.0.1") as free:
            port = free.getsockname()[1]
        script = f"""
import asyncio, uoa.syslog
from syslog_rfc5424_parser import SyslogMessage

@uoa.syslog.handler
async def on_message(data, *, client):
    msg = SyslogMessage.parse(data.decode())
    print(client.host, msg.severity, msg.msg, flush=True)

asyncio.run(uoa.syslog.serve(on_message, "0.0.0.0", {port}, trust=["10.0.0.0/24"]))
"""
        # lark-parser 0.6 imports what Python 3.11 warns of.
        options = ("-W", "ignore:module 'sre_:DeprecationWarning")
        with (
            subprocess.Popen(
                [sys.executable, "-W", "error", *options, "-c", script],
                stdout=subprocess.PIPE,
                text=True,
            ) as server,
            udp_socket("127.0.0.1") as client,
        ):
            try:
                client.connect(("127.0.0.1", port))
                assert server.stdout is not None
                # The kernel refuses until the server is bound.
                while not select.select([server.stdout], [], [], 0.05)[0]:
                    with contextlib.suppress(ConnectionRefusedError):
                        client.send(b"<13>1 - - - - - - hello")
                assert server.stdout.readline() == "127.0.0.1 5 hello\n"
            finally:
                server.terminate()
