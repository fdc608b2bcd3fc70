"""The shim: one process per pod, one thread, one poll loop. Parent and subreaper of everything that runs in the pod.

In reading order:

    main.py         from the zygote's fork to the running loop
    loop.py         epoll, timers
    builder.py      a child that makes the pod's sandbox; sandbox.py its namespaces, pins, shared memory
    home.py         what children are born into; userns.py where that is a user namespace
    service.py      connections of crid: requests, replies, events
    operations.py   what can be asked
    birth.py        a child between clone3 and execve
    execs.py        one more process in a container; the container itself is runtime.container
    console.py      a container's streams; copying.py outputs to the log and to whoever is attached, and input
    dumps.py        a checkpoint taken; restored.py a container that comes out of one
"""
