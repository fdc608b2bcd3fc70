"""nodectl, the operator's command: one verb per file, over the two sockets that a node has.

It reaches containers through CRI like the agent does, so it serves any CRI runtime; the agent adds
what only the agent knows (why a pod waits, when it is tried again), and may be missing.
"""
