"""A CSI driver whose volumes are directories of the node: the simplest driver that keeps the whole contract.

It is a process of its own, like any driver: the agent knows it by its sockets only and it may die at any moment.

    main.py         the process; sockets.py what it serves on; registration.py how it is found
    identity.py     the three services of CSI: who it is,
    controller.py   volumes made and deleted,
    node.py         volumes staged and published
    store.py        the volumes on disk; binds.py the mounts of them
    refusal.py      how a call fails
"""
