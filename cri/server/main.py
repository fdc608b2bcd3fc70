"""The command `crid`: the daemon, or one of its verbs, which work on the root of a crid that does not run.

Only what is asked for is imported.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    match words:
        case ["import", *rest]:
            from cri.server import import_image

            return import_image.main(rest)
        case ["reset", *rest]:
            from cri.server import reset

            return reset.main(rest)
    # What modules make stays. Looking through it for garbage again and again, until all are imported, takes a tenth of
    # the time in which a crid that starts leaves its clients without an answer.
    gc.disable()
    from cri.server import starting

    return starting.start(words)


if __name__ == "__main__":
    raise SystemExit(main())
