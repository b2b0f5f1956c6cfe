# SPDX-License-Identifier: MIT
"""The freestanding headers compile alone, in every world that includes them."""

from __future__ import annotations

from typing import Final

import pytest

from tests.capability import need
from tests.wire.build import INCLUDE, WARNINGS, compile_with, folder

HEADERS: Final = ("wire", "wire_walk", "wire_payload", "wire_build", "uapi")
IN_BPF: Final = ("wire", "wire_walk", "uapi")

HOSTED: Final = ("-std=c11", "-O2", "-Wpedantic")
FREESTANDING: Final = (*HOSTED, "-ffreestanding", "-nostdinc")
KERNEL: Final = (
    "-std=gnu11",
    "-O2",
    "-ffreestanding",
    "-nostdinc",
    "-Wdeclaration-after-statement",
)
BPF: Final = ("-O2", "-target", "bpf", "-mcpu=v3", "-ffreestanding", "-nostdinc")

# Who includes wire_walk.h says how bytes are read.
READER: Final = """
#include <uoa/wire.h>

static inline int uoa_wire_read(const void *ctx, uoa_u32 off, void *to, uoa_u32 n)
{
	__builtin_memcpy(to, (const uoa_u8 *)ctx + off, n);
	return 0;
}
"""

# Numbers that others rely on: the ABI of request 2051, of the maps, of the names.
ASSERTIONS: Final = """
#include <uoa/uapi.h>

_Static_assert(UOA_DIALECT_IPO == 1 && UOA_DIALECT_OPP == 2, "2.7");
_Static_assert(UOA_DIALECT_BD31 == 3 && UOA_DIALECT_BD30 == 4 && UOA_DIALECT_BD29 == 5, "2.7");
_Static_assert(UOA_DIALECT_PPV2 == 6 && UOA_DIALECT_SPP == 7 && UOA_DIALECT_COUNT == 8, "2.7");
_Static_assert(UOA_REASON_FOUND == 0 && UOA_REASON_COUNT == 13, "reasons of the vectors");
_Static_assert(UOA_RULE_FOUND == 0, "a rule that is not 0 yields nothing");
_Static_assert(UOA_RULE_COUNT <= 256, "a rule's ordinal is one byte");
_Static_assert(UOA_RULE_PPV2_CRC >> 8 == UOA_REASON_CHECKSUM, "the reason is the high byte");
_Static_assert(sizeof(struct uoa_claim) == 44, "no holes");
_Static_assert(sizeof(uoa_u8) == 1 && sizeof(uoa_u16) == 2 && sizeof(uoa_u32) == 4, "widths");
_Static_assert(__builtin_offsetof(struct uoa_sockopt_dpvs, real_af) == 38, "2.1");
_Static_assert(__builtin_offsetof(struct uoa_sockopt_dpvs, real_sport) == 56, "2.1");
_Static_assert(__builtin_offsetof(struct uoa_sockopt_bd0, real_saddr) == 12, "2.2");
_Static_assert(__builtin_offsetof(struct uoa_sockopt_bd1, addresses) == 8, "2.3");
_Static_assert(__builtin_offsetof(struct uoa_sockopt_bd2, addresses) == 12, "2.4");
_Static_assert(__builtin_offsetof(struct uoa_sockopt_flow, peer_port) == 40, "2.7");
_Static_assert(__builtin_offsetof(struct uoa_sockopt_flow, client) == 48, "2.7");
_Static_assert(__builtin_offsetof(struct uoa_sockopt_flow, age) == 84, "2.7");
"""


def compile_text(compiler: str, text: str, *flags: str) -> None:
    """Compile a C file that is this text; a warning raises BuildError."""
    source = folder() / "header.c"
    source.write_text(text, encoding="ascii")
    target = folder() / "header.o"
    compile_with(compiler, *flags, *WARNINGS, "-I", INCLUDE, "-c", source, "-o", target)


def including(header: str) -> str:
    """Return a C file that includes one header, and before it only what it asks for."""
    reader = READER if header in ("wire_walk", "wire_build") else ""
    return f"{reader}#include <uoa/{header}.h>\nextern int some_declaration;\n"


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize(
    "flags", [HOSTED, FREESTANDING, KERNEL], ids=["hosted", "freestanding", "kernel"]
)
def test_header_alone(header: str, compiler: str, flags: tuple[str, ...]) -> None:
    """Each header compiles alone and without a warning, with and without a C library."""
    need(compiler)
    compile_text(compiler, including(header), *flags)


@pytest.mark.parametrize("header", IN_BPF)
def test_header_in_bpf(header: str) -> None:
    """What BPF includes compiles for BPF."""
    need("clang")
    compile_text("clang", including(header), *BPF)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_numbers(compiler: str) -> None:
    """Numbers and offsets that an ABI promises are what they were."""
    need(compiler)
    compile_text(compiler, ASSERTIONS, *FREESTANDING)
