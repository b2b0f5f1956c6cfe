# SPDX-License-Identifier: MIT
"""What is installed: headers, libraries, symbols, uoa.pc."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.capability import need
from tests.capi.conftest import ECHO, Installed
from tests.unit.test_layers import EXPORTS, MAP, listed
from tests.wire.build import INCLUDE, ROOT, WARNINGS, BuildError, compile_with

SONAME = "libuoa.so.0"


def output_of(*command: str | Path) -> str:
    """Return what a program prints."""
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout


def project_version() -> str:
    """Return the version that meson.build gives the project."""
    found = re.search(r"^  version: '([^']+)',$", (ROOT / "meson.build").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_nothing_else_is_installed(installed: Installed) -> None:
    """Two headers, two libraries, two links and uoa.pc; nothing of Python."""
    version = project_version()
    files = {str(path.relative_to(installed.prefix)) for path in installed.prefix.rglob("*")}
    folders = {"include", "include/uoa", "lib", "lib/pkgconfig"}

    assert files - folders == {
        *("include/uoa/uoa.h", "include/uoa/wire.h"),
        *("lib/libuoa.a", f"lib/libuoa.so.{version}", f"lib/{SONAME}", "lib/libuoa.so"),
        "lib/pkgconfig/uoa.pc",
    }


def test_headers_are_those_of_the_checkout(installed: Installed) -> None:
    """The installed headers are the project's own, byte for byte."""
    for header in installed.headers.iterdir():
        assert header.read_bytes() == (INCLUDE / "uoa" / header.name).read_bytes()


def test_the_soname_is_of_the_abi(installed: Installed) -> None:
    """Programs ask for libuoa.so.0, and it needs libc only."""
    need("gcc")  # readelf and nm come with it
    dynamic = output_of("readelf", "-d", installed.libraries / "libuoa.so")

    assert re.findall(r"\(SONAME\).*\[(.*)\]", dynamic) == [SONAME]
    assert re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic) == ["libc.so.6"]


def test_it_exports_what_the_map_lists_and_the_header_declares(installed: Installed) -> None:
    """The dynamic symbols are the functions of uoa.h, each with its version, and no others."""
    library = installed.libraries / "libuoa.so"
    symbols = {
        name: kind
        for _, kind, name in (
            line.split() for line in output_of("nm", "-D", "--defined-only", library).splitlines()
        )
    }
    node, names = listed(MAP)

    assert symbols.pop(node) == "A"  # the version itself
    assert symbols == {f"{name}@@{node}": "T" for name in names}
    assert sorted(names) == sorted(EXPORTS)


def test_pkg_config_knows_the_version(installed: Installed) -> None:
    """uoa.pc has the project's version, and names threads to static links only."""
    assert installed.pkg_config("--modversion") == [project_version()]
    assert installed.pkg_config("--libs") == [f"-L{installed.libraries}", "-luoa"]
    assert "-pthread" in installed.pkg_config("--libs", "--static")


def test_a_program_asks_for_the_soname(echo: Path) -> None:
    """What is linked with `pkg-config --libs uoa` needs the shared library, by its soname."""
    assert SONAME in output_of("readelf", "-d", echo)


def test_a_static_link_needs_no_library(installed: Installed, tmp_path: Path) -> None:
    """With libuoa.a the example runs without any libuoa.so."""
    program = tmp_path / "echo"
    flags = installed.pkg_config("--cflags", "--libs", "--static")
    archive = [flag if flag != "-luoa" else "-l:libuoa.a" for flag in flags]
    compile_with("cc", *WARNINGS, "-std=c11", ECHO, "-o", program, *archive)

    assert "libuoa" not in output_of("readelf", "-d", program)
    assert output_of(program, "--help").startswith("usage: echo")


@pytest.mark.parametrize("standard", ["c99", "c11", "c17", "gnu11"])
def test_the_header_stands_alone(installed: Installed, tmp_path: Path, standard: str) -> None:
    """uoa.h compiles first and alone in every standard of C since 1999."""
    source = tmp_path / "alone.c"
    source.write_text("#include <uoa/uoa.h>\nint main(void) { return 0; }\n")
    flags = installed.pkg_config("--cflags")
    compile_with(
        "cc", *WARNINGS, "-pedantic", f"-std={standard}", "-o", tmp_path / "a", source, *flags
    )


def test_the_header_is_cplusplus_too(installed: Installed, tmp_path: Path) -> None:
    """A C++ program includes uoa.h, and links with what it declares."""
    need("g++")
    source = tmp_path / "alone.cc"
    source.write_text(
        "#include <uoa/uoa.h>\n"
        'int main() { return uoa_switch_bit("ipo") == UOA_ENABLE_IPO ? 0 : 1; }\n'
    )
    flags = installed.pkg_config("--cflags", "--libs")
    program = tmp_path / "a"
    compile_with("g++", "-Wall", "-Werror", "-pedantic", "-o", program, source, *flags)

    subprocess.run([program], check=True, env=installed.environment())


def test_what_is_not_promised_cannot_be_linked(installed: Installed, tmp_path: Path) -> None:
    """A function of libuoa's own, which uoa.h does not declare, is hidden."""
    source = tmp_path / "inside.c"
    source.write_text(
        "void uoa_resolve_locked(void);\nint main(void) { uoa_resolve_locked(); return 0; }\n"
    )
    flags = installed.pkg_config("--cflags", "--libs")
    with pytest.raises(BuildError, match="undefined reference"):
        compile_with("cc", "-o", tmp_path / "a", source, *flags)
