"""Puts programs of the built-in plugins into a directory, for other runtimes and for chains with other plugins.

    python -m cni.install /opt/cni/bin [--replace]

Each is a small launcher that starts its module with the interpreter this was called with. What stands there already
under one of the names stays, unless it is one of these launchers or --replace is given.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from runtime.linux.files import read_limited, write_atomic

MODULES: Final = {"bridge": "bridge", "host-local": "host_local", "loopback": "loopback", "portmap": "portmap"}
_MARK: Final = "# A launcher of nodeagent's CNI plugin"


def launcher(module: str) -> bytes:
    """A program that runs a plugin's module; -P keeps the working directory out of the module search path."""
    lines = (
        "#!/bin/sh",
        f"{_MARK}, made by: python -m cni.install",
        f'exec "{sys.executable}" -P -m cni.plugins.{module}',
    )
    return "\n".join((*lines, "")).encode()


def install(directory: Path, *, replace: bool = False) -> list[Path]:
    """Write the launchers that may be written; returns them. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, module in MODULES.items():
        path = directory / name
        if replace or _is_free(path):
            write_atomic(path, launcher(module), mode=0o755)
            written.append(path)
    return written


def _is_free(path: Path) -> bool:
    if not path.exists():
        return True
    try:
        return _MARK.encode() in read_limited(path, 4096)
    except OSError:  # EFBIG: a real program
        return False


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cni.install", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where to put the programs, for example /opt/cni/bin")
    parser.add_argument("--replace", action="store_true", help="also over programs of other projects")
    arguments = parser.parse_args()
    written = install(arguments.directory, replace=arguments.replace)
    for name in MODULES:
        path = arguments.directory / name
        print(f"{path}: {'written' if path in written else 'left as it is, another program has the name'}")


if __name__ == "__main__":
    main()
