"""Who may import whom: the packages' table, kept true by walking every import statement.

Within a room the order is free, but there is one: no module imports another that leads back to it, be it for its types
alone or inside a function.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("runtime", "images", "cni", "csi", "cri", "nodeagent")
GROUND = "runtime.linux"
GRPC = {"grpc", "google", "grpc_tools"}

# The longest matching room decides: (our modules it may import, third-party top-level packages it may import).
TABLE: dict[str, tuple[set[str], set[str]]] = {
    "runtime.linux": (set(), {"prctl", "cgroupspy"}),
    "runtime": ({GROUND}, {"prctl"}),
    "images": ({GROUND}, {"aiohttp", "isal", "zstandard", "yarl"}),
    "cni": ({GROUND}, {"pyroute2"}),
    "csi": ({GROUND}, GRPC),
    "cri.proto": ({GROUND}, GRPC),
    "cri.client": ({GROUND, "cri.proto"}, GRPC),
    "cri.streaming_client": ({GROUND, "cri.proto"}, {"h11", "wsproto"}),
    "cri.server": (
        {GROUND, "runtime.client", "runtime.spec", "images", "cni", "cri.proto"},
        GRPC | {"grpc_reflection", "h11", "wsproto", "pyseccomp", "yaml"},
    ),
    "nodeagent": (
        {GROUND, "cri.client", "cri.streaming_client", "cri.proto", "csi.client", "csi.proto"},
        GRPC | {"lightkube", "prometheus_client", "psutil", "yaml", "rich", "argcomplete", "asyncinotify", "aiohttp"},
    ),
}


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not path.name.endswith("_pb2.py"):
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imports(name: str, path: Path) -> Iterator[tuple[int, str]]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, base] if base else parts)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def room_of(module: str) -> str | None:
    fitting = [room for room in TABLE if module == room or module.startswith(room + ".")]
    return max(fitting, key=len, default=None)


def allowed(room: str, target: str) -> bool:
    ours, third_party = TABLE[room]
    top = target.partition(".")[0]
    if top not in PACKAGES:
        return top in sys.stdlib_module_names or top in third_party
    return any(target == place or target.startswith(place + ".") for place in {room, *ours})


@pytest.mark.parametrize(("name", "path"), [pytest.param(n, p, id=n) for n, p in modules()])
def test_imports_stay_inside_the_table(name: str, path: Path) -> None:
    room = room_of(name)
    if room is None:
        assert path.name == "__init__.py", f"{path} belongs to no room of the import table"
        return
    strays = [f"{path}:{line} imports {target}" for line, target in imports(name, path) if not allowed(room, target)]
    assert not strays, "\n".join(strays)


def module_of(target: str, names: Collection[str]) -> str | None:
    """The module of ours that an imported name is, or is in."""
    while target and target not in names:
        target = target.rpartition(".")[0]
    return target or None


def test_no_imports_lead_back_to_where_they_began() -> None:
    paths = dict(modules())
    order = graphlib.TopologicalSorter[str]()
    for name, path in paths.items():
        found = {module_of(target, paths) for _, target in imports(name, path)}
        order.add(name, *(other for other in found if other and other != name))
    order.prepare()  # raises CycleError, which holds the circle
