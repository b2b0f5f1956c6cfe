# SPDX-License-Identifier: MIT
"""The arrows of the house, read from includes and imports, and the licence of each file.

freestanding headers → kmod, bpf, core → _native → private modules → public ones.
Every check is a function from a path and a text to complaints, so that the tests
can also show it a file that is wrong.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = "sdk/python/uoa/"

Check = Callable[[str, str], Iterator[str]]


def sources(*patterns: str) -> list[str]:
    """Return the files of the checkout that match, as paths from its root."""
    return sorted(
        str(path.relative_to(ROOT))
        for pattern in patterns
        for path in ROOT.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    )


def complaints(check: Check, paths: list[str]) -> list[str]:
    """Return what a check has to say of these files."""
    return [
        f"{path}: {complaint}"
        for path in paths
        for complaint in check(path, (ROOT / path).read_text(encoding="utf-8"))
    ]


# ---- C -------------------------------------------------------------------------------

FREESTANDING: Final = sources("sdk/core/include/uoa/wire*.h", "sdk/core/include/uoa/uapi.h") + (
    sources("sdk/core/include/uoa/maps.h")
)
_FREESTANDING_NAMES: Final = [Path(path).name for path in FREESTANDING]
_SHARED: Final = [f"uoa/{name}" for name in _FREESTANDING_NAMES]
_LIBC: Final = ["*.h", "arpa/*.h", "net/*.h", "netinet/*.h", "sys/*.h"]
_KERNEL: Final = ["linux/*.h", "asm/*.h", "net/*.h", "uapi/*.h", "generated/*.h"]

# Which headers a folder may include, "quoted" apart from <system> ones. A quoted
# header without a slash is one beside the file.
INCLUDES: Final[dict[str, list[str]]] = {
    "sdk/core/include/uoa/uoa.h": ["<stddef.h>", "<stdint.h>", '"wire.h"'],
    "sdk/core/include/uoa/*.h": [f'"{name}"' for name in _FREESTANDING_NAMES],
    "sdk/core/src/*": [
        '"*.h"',
        "<uoa/uoa.h>",
        *(f"<{name}>" for name in [*_SHARED, *_LIBC, "linux/sock_diag.h"]),
    ],
    "sdk/python/uoa/_native/*": ['"batch.h"', "<uoa/uoa.h>", *(f"<{name}>" for name in _LIBC)],
    "examples/c/*": ["<uoa/uoa.h>", *(f"<{name}>" for name in _LIBC)],
    "bpf/*": ['"*.h"', "<bpf/*.h>", *(f"<{name}>" for name in [*_SHARED, *_KERNEL])],
    "kmod/*": ['"*.h"', *(f"<{name}>" for name in [*_SHARED, *_KERNEL])],
}


def is_allowed(include: str, rules: list[str]) -> bool:
    """Return whether a rule matches; its `*` stands for a name in lower case."""
    return any(
        re.fullmatch(re.escape(rule).replace(r"\*", "[a-z_0-9]*"), include) for rule in rules
    )


def wrong_includes(path: str, text: str) -> Iterator[str]:
    """Find includes that point against the arrows."""
    allowed = next((rules for place, rules in INCLUDES.items() if fnmatch(path, place)), None)
    if allowed is None:
        yield "no rule says what it may include"
        return
    for include in re.findall(r'^\s*#\s*include\s*(<[^>]+>|"[^"]+")', text, re.MULTILINE):
        is_quoted = include.startswith('"')
        if not is_allowed(include, allowed):
            yield f"includes {include}"
        elif is_quoted and not (ROOT / path).with_name(include.strip('"')).exists():
            yield f"includes {include}, which is not beside it"


C_SOURCES: Final = sources(
    "sdk/core/**/*.[ch]", "sdk/python/uoa/_native/*.[ch]", "bpf/**/*.[ch]", "kmod/**/*.[ch]"
) + sources("sdk/python/uoa/_native/*.csrc", "examples/c/*")


class TestIncludes:
    """C: who may include what."""

    def test_no_include_points_against_the_arrows(self) -> None:
        """Every file includes only what stands before it in the house."""
        assert "sdk/core/src/resolver.c" in C_SOURCES
        assert complaints(wrong_includes, C_SOURCES) == []

    def test_freestanding_headers_say_so(self) -> None:
        """The headers for three worlds begin by saying that they need none of them."""
        assert len(FREESTANDING) >= 5
        for path in FREESTANDING:
            assert "FREESTANDING" in (ROOT / path).read_text(encoding="utf-8")[:300], path

    @pytest.mark.parametrize(
        ("path", "line"),
        [
            ("sdk/core/include/uoa/wire.h", "#include <stdint.h>"),
            ("sdk/core/include/uoa/wire.h", '#include "uoa.h"'),
            ("sdk/core/include/uoa/uapi.h", "#include <linux/types.h>"),
            ("sdk/core/include/uoa/uoa.h", "#include <sys/socket.h>"),
            ("sdk/core/src/flows.c", "#include <Python.h>"),
            ("sdk/core/src/flows.c", "  #  include <linux/bpf.h>"),
            ("sdk/core/src/flows.c", "#include <bpf/bpf.h>"),
            ("sdk/core/src/flows.c", '#include "batch.h"'),
            ("sdk/core/src/flows.c", '#include "../../../kmod/policy.h"'),
            ("sdk/python/uoa/_native/batch.c", '#include "../../../core/src/flows.h"'),
            ("sdk/python/uoa/_native/batch.c", "#include <uoa/wire.h>"),
            ("examples/c/echo.c", "#include <uoa/wire_build.h>"),
            ("examples/c/echo.c", '#include "show.h"'),
            ("bpf/learn.bpf.c", "#include <uoa/uoa.h>"),
            ("bpf/learn.bpf.c", "#include <stdio.h>"),
            ("kmod/main.c", "#include <uoa/uoa.h>"),
            ("kmod/main.c", "#include <string.h>"),
            ("somewhere/else.c", ""),
        ],
    )
    def test_a_wrong_include_is_found(self, path: str, line: str) -> None:
        """A single line against the arrows is a complaint."""
        assert list(wrong_includes(path, f"/* Text. */\n{line}\n"))


def declared(header: str) -> list[str]:
    """Return the functions that a text in the manner of uoa.h exports."""
    return re.findall(r"^UOA_API\b[^;(]*\b(\w+)\(", header, re.MULTILINE)


def listed(script: str) -> tuple[str, list[str]]:
    """Return the version node of a linker's version script, and the names it exports."""
    pattern = (
        r"^/\*[^/]*\*/\n/\*[^/]*\*/\n([\w.]+) \{\nglobal:\n((?:\t\w+;\n)+)local:\n\t\*;\n\};\n"
    )
    found = re.fullmatch(pattern, script)
    assert found is not None, "not one node that hides all but its names"
    return found[1], re.findall(r"\w+", found[2])


EXPORTS: Final = declared((ROOT / "sdk/core/include/uoa/uoa.h").read_text(encoding="utf-8"))
MAP: Final = (ROOT / "sdk/core/libuoa.map").read_text(encoding="utf-8")


class TestExports:
    """C: what libuoa promises by name; tests/capi compares the library itself."""

    def test_the_map_lists_what_the_header_declares(self) -> None:
        """Each function of uoa.h is in libuoa.map once, in order, and nothing else is."""
        node, names = listed(MAP)

        assert node == "LIBUOA_0.1"
        assert len(EXPORTS) > 30
        assert names == sorted(EXPORTS)

    def test_every_declaration_is_marked(self) -> None:
        """No function is declared in uoa.h without UOA_API."""
        header = (ROOT / "sdk/core/include/uoa/uoa.h").read_text(encoding="utf-8")
        code = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)

        assert sorted(re.findall(r"\b(uoa_\w+)\(", code)) == sorted(EXPORTS)

    @pytest.mark.parametrize(
        "script", [MAP.replace("\t*;", "\tuoa_*;"), MAP + MAP, MAP.replace("local:", "")]
    )
    def test_a_wrong_map_is_found(self, script: str) -> None:
        """A script that exports by pattern, or has two nodes, is refused."""
        with pytest.raises(AssertionError, match="not one node"):
            listed(script)


# ---- Python --------------------------------------------------------------------------

# Who talks to C. A module that joins them needs a reason.
NATIVE_USERS: Final = {
    "uoa._address",
    "uoa._client",
    "uoa._dialects",
    "uoa._receiver",
    "uoa._resolver",
    "uoa._stream",
    "uoa._trust",
    "uoa.asyncio",
    "uoa.wire",
}
_FRAMEWORKS: Final = {
    "aiocoap", "aioquic", "anyio", "asyncio", "ctypes", "dnslib", "gevent", "hypercorn", "nserver",
    "prometheus_client", "rich", "socketserver", "starlette", "syslogcef", "trio", "twisted",
    "uvloop",
}  # fmt: skip

# `uoa.wrap`: the package loads its module when it is used, as it does public ones.
_LAZY: Final = {"uoa._wrap"}


def module_of(path: str) -> str:
    """Return the dotted name of a file of the package."""
    name = path.removeprefix("sdk/python/").removesuffix(".py").replace("/", ".")
    return name.removesuffix(".__init__")


MODULES: Final = [module_of(path) for path in sources(f"{PACKAGE}**/*.py")]


def imports_of(path: str, text: str) -> Iterator[str]:
    """Yield the modules that a file imports, wherever in the file it does."""
    module = module_of(path)
    package = module.split(".") if path.endswith("__init__.py") else module.split(".")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{start}.{alias.name}"
                yield full if full in (*MODULES, "uoa._native._core") else start


def is_private(module: str) -> bool:
    """Return whether a module is the package itself or has an underscore."""
    return module == "uoa" or module.split(".")[1].startswith("_")


def wrong_imports(path: str, text: str) -> Iterator[str]:
    """Find imports that point against the arrows."""
    module = module_of(path)
    is_cli = module.startswith("uoa.cli") or module == "uoa.__main__"
    for imported in imports_of(path, text):
        top = imported.split(".")[0]
        is_ours = top == "uoa"
        if top in ("cffi", "_cffi_backend", "tests"):
            yield f"imports {imported}"
        elif imported == "uoa._native._core" and module != "uoa._native":
            yield f"imports {imported}: take ffi and lib from uoa._native"
        elif imported == "uoa._native" and module not in NATIVE_USERS:
            yield f"imports {imported}: it is not one of those who talk to C"
        elif imported.startswith("uoa.cli") and not is_cli:
            yield f"imports {imported}: the command line is at the end of all arrows"
        elif is_private(module) and not is_cli and top in _FRAMEWORKS and module not in _LAZY:
            yield f"imports {imported}: frameworks are for public modules"
        elif is_private(module) and not is_cli and is_ours and not is_private(imported):
            yield f"imports {imported}: a public module"
        elif imported == "uoa" and not is_cli:
            yield "imports uoa: take names from where they are defined"


PY_SOURCES: Final = sources(f"{PACKAGE}**/*.py")


def without_type_checking(path: str, text: str) -> Iterator[str]:
    """Find wrong imports, but let the package name its public modules to type checkers."""
    if path == f"{PACKAGE}__init__.py":
        text = re.sub(r"^if TYPE_CHECKING:\n(    .*\n)+", "", text, flags=re.MULTILINE)
    yield from wrong_imports(path, text)


class TestImports:
    """Python: who may import what."""

    def test_no_import_points_against_the_arrows(self) -> None:
        """Every module imports only what stands before it in the house."""
        assert f"{PACKAGE}_resolver.py" in PY_SOURCES
        assert complaints(without_type_checking, PY_SOURCES) == []

    def test_those_who_talk_to_c_are_all_there(self) -> None:
        """The list of users of _native names nobody who is not one."""
        users = {
            module_of(path)
            for path in PY_SOURCES
            if "uoa._native" in imports_of(path, (ROOT / path).read_text(encoding="utf-8"))
        }

        assert users - {"uoa._native"} == NATIVE_USERS

    def test_one_function_makes_exceptions_of_error_numbers(self) -> None:
        """Only _errors_from_c calls os.strerror()."""
        callers = [
            path
            for path in PY_SOURCES
            if "strerror" in (ROOT / path).read_text(encoding="utf-8") and "/cli/" not in path
        ]

        assert callers == [f"{PACKAGE}_errors_from_c.py"]

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("_resolver.py", "import asyncio"),
            ("_resolver.py", "def f():\n    import rich.table"),
            ("_resolver.py", "from uoa import asyncio"),
            ("_resolver.py", "from uoa import wire"),
            ("_resolver.py", "from uoa.wire import build"),
            ("_resolver.py", "from .wire import build"),
            ("_resolver.py", "from . import wire"),
            ("_resolver.py", "import uoa"),
            ("_resolver.py", "from uoa._native._core import lib"),
            ("_resolver.py", "from uoa._native import _core"),
            ("_resolver.py", "import cffi"),
            ("_exceptions.py", "from uoa._native import lib"),
            ("_exceptions.py", "if TYPE_CHECKING:\n    from uoa.wire import Decoded"),
            ("asyncio.py", "from uoa.cli import lb"),
            ("asyncio.py", "from uoa import cli"),
            ("wire.py", "import tests.senders"),
            ("cli/send.py", "from uoa._native import lib"),
            ("__init__.py", "import asyncio"),
            ("__init__.py", "from uoa.asyncio import serve"),
            ("_native/__init__.py", "from uoa._resolver import Resolver\nimport cffi"),
        ],
    )
    def test_a_wrong_import_is_found(self, name: str, line: str) -> None:
        """A single line against the arrows is a complaint."""
        assert list(wrong_imports(f"{PACKAGE}{name}", f'"""Text."""\n{line}\n'))

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("_resolver.py", "from uoa import _dialects, _trust"),
            ("_resolver.py", "from uoa._native import ffi, lib"),
            ("_native/__init__.py", "from uoa._native._core import ffi, lib"),
            ("asyncio.py", "import asyncio"),
            ("cli/demo.py", "import asyncio\nfrom uoa import wire\nfrom uoa.cli import _netns"),
            ("__main__.py", "from uoa.cli import main"),
        ],
    )
    def test_a_right_import_is_not(self, name: str, line: str) -> None:
        """What points along the arrows is no complaint."""
        assert list(wrong_imports(f"{PACKAGE}{name}", line)) == []


# ---- Licences ------------------------------------------------------------------------

LICENCES: Final = {
    "sdk/core/include/uoa/uoa.h": "MIT",
    "sdk/core/include/uoa/*": "GPL-2.0-only OR MIT",
    "bpf/*": "GPL-2.0-only OR MIT",
    "kmod/*": "GPL-2.0-only",
    "*": "MIT",
}
_SOURCE: Final = (
    *(".py", ".pyi", ".c", ".h", ".cdef", ".csrc", ".go", ".sh", ".map"),
    *("meson.build", "meson.options", "Makefile", "Kbuild"),
)


def wrong_licence(path: str, text: str) -> Iterator[str]:
    """Find a file whose licence line is missing, too far down, or another's."""
    expected = next(name for place, name in LICENCES.items() if fnmatch(path, place))
    found = re.search(r"SPDX-License-Identifier: ([^*\n]+?) *(\*/)?$", text, re.MULTILINE)
    first = "\n".join(text.splitlines()[:2])
    if found is None or found.group(0) not in first:
        yield "no SPDX line at the top"
    elif found.group(1) != expected:
        yield f"is {found.group(1)}, not {expected}"


ALL_SOURCES: Final = [
    path
    for folder in ("sdk", "tests", "bpf", "kmod", "examples")
    for path in sources(f"{folder}/**/*")
    if path.endswith(_SOURCE)
] + sources("meson.*", "Makefile", "*.toml", "tox.ini")


class TestLicences:
    """One SPDX line a file."""

    def test_every_source_says_its_licence_first(self) -> None:
        """Each file has the licence of its place in the house, in its first lines."""
        assert {Path(path).suffix for path in ALL_SOURCES} >= {".c", ".h", ".py", ".cdef", ".csrc"}
        assert complaints(wrong_licence, ALL_SOURCES) == []

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("sdk/core/src/flows.c", ""),
            ("sdk/core/src/flows.c", "/* SPDX-License-Identifier: GPL-2.0-only OR MIT */\n"),
            ("sdk/core/include/uoa/wire.h", "/* SPDX-License-Identifier: MIT */\n"),
            ("bpf/learn.bpf.c", "/* SPDX-License-Identifier: MIT */\n"),
            ("kmod/main.c", "/* SPDX-License-Identifier: GPL-2.0-only OR MIT */\n"),
            ("sdk/python/uoa/wire.py", "\n\n\n# SPDX-License-Identifier: MIT\n"),
        ],
    )
    def test_a_wrong_licence_is_found(self, path: str, text: str) -> None:
        """A file without its line, or with another's, is a complaint."""
        assert list(wrong_licence(path, text))
