"""nodectl, the operator's command: one verb per file, over the two sockets that a node has.

It reaches containers through CRI like the agent does, so it serves any CRI runtime; the agent adds what only the agent
knows (why a pod waits, when it is tried again), and may be missing.

    main.py      finds the verb, and imports that one alone: a command starts fast
    session.py   one run: the sockets, from places.py, and the boundary where failures become one line (complaint.py)
    world.py     pods, put together from both, each in a pod_state.py; targets.py finds the one that is meant
    output.py    documents as tables for people (amounts.py, colours.py) or JSON for scripts
    terminal.py  the operator's terminal, lent to a command; completers.py names that the shell completes
    *_verb.py    arguments(parser) and `async run(session, given) -> exit status`
"""
