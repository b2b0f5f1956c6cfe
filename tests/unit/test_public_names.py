# SPDX-License-Identifier: MIT
"""What `uoa` promises by name, and what importing it costs."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import pkgutil
import subprocess
import sys
from types import ModuleType
from typing import Any, Final

import pytest

import uoa

# Modules that are named after a framework which has to be installed, and their extras.
EXTRAS: Final = {
    "aioquic": "quic",
    "dnslib": "dns",
    "hypercorn": "hypercorn",
    "nserver": "nserver",
}

# Public modules and the names that stand for one: underscores are private, and
# the command line promises commands, not names. Where a framework is not installed
# its module cannot be judged; the tox environments `frameworks` have them all.
ALL_PUBLIC: Final = sorted(
    info.name
    for info in pkgutil.iter_modules(uoa.__path__)
    if not info.name.startswith("_") and info.name != "cli"
)
PUBLIC: Final = [
    name for name in ALL_PUBLIC if name not in EXTRAS or importlib.util.find_spec(name) is not None
]
# `_receiver` and `_stream` are for sockets of this package.
PRIVATE: Final = sorted(
    info.name
    for info in pkgutil.iter_modules(uoa.__path__)
    if info.name.startswith("_") and info.name not in ("__main__", "_receiver", "_stream")
)


def public_modules() -> list[ModuleType]:
    """Return the package and its public modules."""
    return [uoa, *(importlib.import_module(f"uoa.{name}") for name in PUBLIC)]


def classes_of(module: ModuleType) -> list[str]:
    """Return the classes without an underscore that a module defines."""
    return [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def promised() -> dict[str, Any]:
    """Return every public function, class, method and property, by its full name."""
    found: dict[str, Any] = {}
    for module in public_modules():
        for name in module.__all__:
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isroutine(value)):
                continue
            found[f"{module.__name__}.{name}"] = value
            for member, inner in vars(value).items() if inspect.isclass(value) else ():
                is_callable = inspect.isroutine(inner) or isinstance(inner, property)
                if is_callable and not member.startswith("_"):
                    found[f"{module.__name__}.{name}.{member}"] = inner
    return found


def imported_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has after a statement."""
    script = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(result.stdout))


class TestNames:
    """`__all__`, and what it leaves out."""

    def test_all_is_sorted_and_without_doubles(self) -> None:
        """The list of public names is easy to read and to change."""
        assert uoa.__all__ == sorted(set(uoa.__all__))

    def test_all_is_what_the_package_binds(self) -> None:
        """Everything that the package binds without an underscore is public, and the other way."""
        bound = {
            name
            for name, value in vars(uoa).items()
            if not name.startswith("_") and not inspect.ismodule(value)
        }

        # `wrap` is taken from its module whenever it is used.
        assert set(uoa.__all__) - {"__version__"} == bound - {"TYPE_CHECKING"} | {"wrap"}

    @pytest.mark.parametrize("name", PRIVATE)
    def test_every_class_of_a_private_module_is_exported(self, name: str) -> None:
        """A class without an underscore is for users: the package exports it, and as it is."""
        module = importlib.import_module(f"uoa.{name}")
        for exported in classes_of(module):
            assert exported in uoa.__all__
            assert getattr(uoa, exported) is getattr(module, exported)

    def test_every_public_class_comes_from_a_private_module(self) -> None:
        """No public class is defined in the package's own file."""
        found = {
            exported
            for name in PRIVATE
            for exported in classes_of(importlib.import_module(f"uoa.{name}"))
        }

        assert {name for name in uoa.__all__ if inspect.isclass(getattr(uoa, name))} == found

    @pytest.mark.parametrize("name", PUBLIC)
    def test_a_public_module_lists_what_it_defines(self, name: str) -> None:
        """`__all__` of a public module names all that it defines without an underscore."""
        module = importlib.import_module(f"uoa.{name}")
        defined = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and (inspect.isclass(value) or inspect.isfunction(value))
            and value.__module__ == module.__name__
        }

        assert defined <= set(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
        assert len(set(module.__all__)) == len(module.__all__)

    @pytest.mark.parametrize("name", PUBLIC)
    def test_public_modules_load_when_they_are_used(self, name: str) -> None:
        """Each public module is an attribute of the package, and dir() tells of it."""
        assert getattr(uoa, name) is importlib.import_module(f"uoa.{name}")
        assert name in dir(uoa)
        assert name not in uoa.__all__

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        """The package's __getattr__() invents nothing."""
        with pytest.raises(AttributeError, match="'uoa' has no attribute 'nothing'"):
            uoa.nothing  # noqa: B018

    def test_errors_are_one_tree(self) -> None:
        """Every error is a UOAError, and also what a Python programmer would catch."""
        for name in uoa.__all__:
            value = getattr(uoa, name)
            if not name.endswith("Error") or name == "UOAError":
                continue
            builtin = [base for base in value.__mro__ if base.__module__ == "builtins"]

            assert issubclass(value, uoa.UOAError)
            assert builtin[0] is not Exception, f"{name} refines no exception of Python's own"


class TestDocstrings:
    """Public names say what they are."""

    @pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
    def test_every_public_module_has_one(self, module: ModuleType) -> None:
        """A public module begins with what it is for."""
        assert module.__doc__
        assert module.__doc__.strip()

    @pytest.mark.parametrize("name", list(promised()))
    def test_every_public_name_has_one(self, name: str) -> None:
        """Functions, classes, methods and properties have docstrings that begin with a sentence."""
        text = (promised()[name].__doc__ or "").strip()
        first = text.split("\n\n")[0]

        assert first[:1].isupper(), f"{name} has no docstring"
        assert first.endswith((".", ":")), f"{name}: {first!r} is no sentence"


class TestImport:
    """`import uoa` is cheap: cffi and libc are all it needs."""

    def test_the_package_pulls_in_no_framework(self) -> None:
        """Importing the package loads neither asyncio nor rich nor ctypes, nor its own modules."""
        modules = imported_by("import uoa")

        assert "uoa._native._core" in modules
        assert modules.isdisjoint({"asyncio", "rich", "ctypes", "socketserver", "argparse"})
        assert modules.isdisjoint({f"uoa.{name}" for name in [*ALL_PUBLIC, "cli"]})
        assert modules.isdisjoint(EXTRAS)

    @pytest.mark.parametrize(("name", "extra"), EXTRAS.items())
    def test_a_framework_that_is_not_there_is_named(self, name: str, extra: str) -> None:
        """A module whose framework is missing says what to install."""
        script = f"import sys; sys.modules[{name!r}] = None; import uoa; uoa.{name}"
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True
        )

        expected = f'uoa.{name}: {name} is not installed: pip install "uoa[{extra}]"'
        assert result.stderr.splitlines()[-1] == f"ImportError: {expected}"

    def test_a_framework_comes_with_its_module(self) -> None:
        """The first use of a public module imports it, by attribute too."""
        assert "asyncio" in imported_by("import uoa; uoa.asyncio")
        assert "uoa.wire" in imported_by("import uoa; uoa.wire")
        assert "asyncio" not in imported_by("import uoa; uoa.wire")
