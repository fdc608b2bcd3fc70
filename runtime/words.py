"""Names that a shim writes to, together on one page.

Code that looks up a name counts a reference to it, and so writes to it (`runtime.gathering`). A name exists once in a
process, where it was first needed, and cannot be made anew. Hence the zygote imports this module before all others.

It holds the names that a shim looks up until its container runs and that no specialized instruction (PEP 659) finds
without them: methods kept to be called later, keys of messages. One that is missing costs a page, and nothing else.
"""

from __future__ import annotations

from typing import Final

WORDS: Final = (
    "_accept", "_born", "_builder_ended", "_built", "_finished", "_flags", "_output_ended", "_published", "_readable",
    "_reap", "_running", "_started", "_timers", "_told", "_too_late", "adopt", "begin", "cgroup", "closed", "container",
    "doc", "ended", "fileno", "live", "log", "loop", "node", "op", "operations", "pair", "pid_own", "pid_target", "pod",
    "run", "running", "runtime", "send_payload", "set_blocking", "setns", "started_at", "state_dir", "stdin_once",
    "suppress", "traces", "tty", "turn", "userns",
)  # fmt: skip
