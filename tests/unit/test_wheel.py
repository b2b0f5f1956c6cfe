# SPDX-License-Identifier: MIT
"""The installed package: one wheel for every Python, with nothing in it but Python's."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

from tests.capability import need
from uoa._native import _core


@pytest.fixture(scope="module")
def package() -> Distribution:
    """Return what is installed as uoa."""
    return distribution("uoa")


def test_the_extension_is_for_the_stable_abi() -> None:
    """The module that runs here is `_core.abi3.so`, which names no Python version."""
    assert _core.__file__ is not None
    assert Path(_core.__file__).name == "_core.abi3.so"


def builders(package: Distribution) -> set[str]:
    """Return who can have built the package: its tags name the Python that did, as `cp311`."""
    tags = re.findall(r"^Tag: (cp\d+)-abi3-linux_\w+$", package.read_text("WHEEL") or "", re.M)
    assert tags, "no tag of the stable ABI"
    return set(tags)


def test_the_wheel_is_for_its_builder_and_newer(package: Distribution) -> None:
    """The tag is of the stable ABI, of Python 3.11 at the oldest, and not newer than this one."""
    (builder,) = builders(package)
    print(f"built by {builder}, running on {sys.implementation.cache_tag}")

    assert 11 <= int(builder.removeprefix("cp3")) <= sys.version_info.minor


def test_the_oldest_python_builds_the_one_wheel(package: Distribution) -> None:
    """Where there is a Python 3.11, tests on all newer ones run what that one has built."""
    need("py311")

    assert builders(package) == {"cp311"}


def test_the_stub_names_what_the_extension_has() -> None:
    """`_core.pyi`, which is written by hand, has every name of `lib` and no other."""
    stub = ast.parse(Path(_core.__file__).with_name("_core.pyi").read_text(encoding="utf-8"))
    [lib] = [node for node in stub.body if isinstance(node, ast.ClassDef)]
    constants = [node.target for node in lib.body if isinstance(node, ast.AnnAssign)]
    functions = [node.name for node in lib.body if isinstance(node, ast.FunctionDef)]
    names = [target.id for target in constants if isinstance(target, ast.Name)] + functions

    assert sorted(names) == sorted(dir(_core.lib))


def test_the_wheel_is_typed(package: Distribution) -> None:
    """Type checkers find the marker of PEP 561 beside the package, and the stub."""
    names = {str(file) for file in package.files or ()}

    assert {"uoa/py.typed", "uoa/_native/_core.pyi"} <= names


def test_the_wheel_has_one_binary_and_nothing_for_c(package: Distribution) -> None:
    """Headers, libraries and uoa.pc come with -Dclib=true only, and never in a wheel."""
    names = [str(file) for file in package.files or ()]
    binaries = [name for name in names if ".so" in Path(name).suffixes]

    assert binaries == ["uoa/_native/_core.abi3.so"]
    assert [name for name in names if name.endswith((".h", ".c", ".a", ".pc", ".map"))] == []
