"""nodectl completion: what a shell must evaluate to complete nodectl's words."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def run(given: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["nodectl"], shell=given.shell))
    return 0
