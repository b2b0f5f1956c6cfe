# SPDX-License-Identifier: MIT
"""The command line, `uoa`: one module a sub-command.

A sub-command's module has `add_parser(commands)`, which describes its arguments
and names its `run(args) -> int`. What it reads goes to stdout, with `--json` as
one document; errors go to stderr as "uoa: what: why: what to do" with status 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from uoa._exceptions import UOAError
from uoa._version import __version__

COMMANDS = ("decode", "demo", "doctor", "lb", "send")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="uoa", description="The client's address of UDP datagrams behind a load balancer."
    )
    parser.add_argument("--version", action="version", version=f"uoa {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for name in COMMANDS:
        import_module(f"uoa.cli.{name}").add_parser(commands)
    return parser


def _text_of(error: Exception) -> str:
    """Return what happened, without the number that Python puts before it."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    args = _parser().parse_args(arguments)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough; Python would complain at exit otherwise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UOAError, OSError) as error:
        print(f"uoa: {_text_of(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status
