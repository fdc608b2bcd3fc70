"""The command `crid`: the daemon, or one of its verbs, which work on the root of a crid that does not run.

Only what is asked for is imported, and no garbage is looked for meanwhile: what modules make stays, and looking through
it again and again takes a tenth of the time in which a crid that starts leaves its clients without an answer.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    gc.disable()
    run, rest = _chosen(words)
    gc.freeze()
    gc.enable()
    return run(rest)


def _chosen(words: list[str]) -> tuple[Callable[[Sequence[str]], int], list[str]]:
    """What the words ask for, and those that are left for it."""
    match words:
        case ["import", *rest]:
            from cri.server import import_image

            return import_image.main, rest
        case ["reset", *rest]:
            from cri.server import reset

            return reset.main, rest
    from cri.server import serving

    return serving.serve, words


if __name__ == "__main__":
    raise SystemExit(main())
