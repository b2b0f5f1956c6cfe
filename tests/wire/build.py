# SPDX-License-Identifier: MIT
"""Build the harnesses of this folder, each at most once in a process."""

from __future__ import annotations

import atexit
import functools
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
INCLUDE: Final = ROOT / "sdk/core/include"

DECODER: Final = tuple(f"sdk/core/src/{name}.c" for name in ("decode", "names", "trust"))
NAMES: Final = ("sdk/core/src/names.c",)
SOURCES: Final = {
    "vectors": ("tests/wire/vectors.c", *DECODER),
    "reads": ("tests/wire/reads.c", *NAMES),
    "streams": ("tests/wire/streams.c", *NAMES),
    "builds": ("tests/wire/builds.c", *DECODER),
    "sockopt": ("tests/wire/sockopt.c", *NAMES),
    "fuzz_wire": ("tests/fuzz/fuzz_wire.c", *DECODER),
    "bpf": ("tests/wire/bpf.c", *NAMES, "-lbpf"),
}

WARNINGS: Final = ("-Wall", "-Wextra", "-Werror")
OPTIMISED: Final = ("-O2",)
SANITIZED: Final = (
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)
BPF: Final = ("-O2", "-g", "-target", "bpf", "-mcpu=v3")


class BuildError(Exception):
    """A compiler refused its input; the message is what it said."""


@functools.cache
def folder() -> Path:
    """Return a folder that lives as long as this process."""
    path = tempfile.mkdtemp(prefix="uoa-wire-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def compile_with(compiler: str, *arguments: str | Path) -> None:
    """Run a compiler in the root of the project.

    Raises:
        BuildError: it failed.
    """
    command = [compiler, *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    if result.returncode:
        raise BuildError(f"{' '.join(command)}\n{result.stderr}")


@functools.cache
def build(name: str, *flags: str, compiler: str = "gcc") -> Path:
    """Build one harness of `SOURCES` and return the program.

    Args:
        name: a key of `SOURCES`.
        flags: `OPTIMISED`, `SANITIZED`, or what else the compiler and linker are told.
        compiler: the command that compiles and links.

    Raises:
        BuildError: the compiler refused.
    """
    program = folder() / f"{name}-{len(list(folder().iterdir()))}"
    compile_with(
        compiler,
        *("-std=gnu11", *WARNINGS, "-I", INCLUDE, "-I", "tests/wire", "-o", program),
        *SOURCES[name],
        *flags,
    )
    return program


@functools.cache
def build_bpf(name: str, compiler: str = "clang") -> Path:
    """Build one BPF object (`wire_map`, `wire_skb`) and return it.

    Raises:
        BuildError: the compiler refused.
    """
    target = folder() / f"{name}.bpf.o"
    source = f"tests/wire/{name}.bpf.c"
    # Debian keeps <asm/types.h> in a folder that only its own target looks into.
    system = f"/usr/include/{platform.machine()}-linux-gnu"
    compile_with(
        compiler, *BPF, *WARNINGS, "-I", INCLUDE, "-idirafter", system, "-c", source, "-o", target
    )
    return target
