# SPDX-License-Identifier: MIT
"""libuoa, configured, built and installed once for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.capability import need
from tests.wire.build import ROOT, WARNINGS, compile_with

ECHO: Final = ROOT / "examples/c/echo.c"


@dataclass(frozen=True)
class Installed:
    """Where `meson install` has put things."""

    prefix: Path

    @property
    def headers(self) -> Path:
        """The folder of uoa.h."""
        return self.prefix / "include/uoa"

    @property
    def libraries(self) -> Path:
        """The folder of libuoa.so."""
        return self.prefix / "lib"

    def pkg_config(self, *arguments: str) -> list[str]:
        """Return the words that pkg-config says of uoa, looking nowhere but here."""
        need("pkg-config")
        command = ["pkg-config", *arguments, "uoa"]
        only_here = {**os.environ, "PKG_CONFIG_LIBDIR": str(self.libraries / "pkgconfig")}
        result = subprocess.run(command, capture_output=True, text=True, env=only_here)
        assert result.returncode == 0, result.stderr
        return result.stdout.split()

    def environment(self) -> dict[str, str]:
        """Return the variables with which programs find libuoa.so."""
        return {**os.environ, "LD_LIBRARY_PATH": str(self.libraries)}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install libuoa under a fresh prefix, as sdk/core/README.md says."""
    for name in ("gcc", "meson", "ninja"):
        need(name)
    build, prefix = (tmp_path_factory.mktemp(name) for name in ("build", "prefix"))
    options = ["-Dclib=true", "-Dpython=false", f"--prefix={prefix}", "--libdir=lib", "--werror"]
    for command in (
        ["meson", "setup", str(build), str(ROOT), *options],
        ["meson", "install", "-C", str(build)],
    ):
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
    return Installed(prefix)


@pytest.fixture(scope="session")
def echo(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build examples/c/echo.c with what pkg-config says, and with nothing else of ours."""
    program = tmp_path_factory.mktemp("bin") / "echo"
    flags = installed.pkg_config("--cflags", "--libs")
    compile_with("cc", *WARNINGS, "-std=c11", ECHO, "-o", program, *flags)
    return program
