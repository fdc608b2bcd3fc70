"""Containers of an external OCI runtime (runc, crun, ...), run by the shim through its command line.

    crid    bundle.py      the OCI config, complete, from the same spec that the built-in runtime takes
    shim    operations.py  what can be asked of such a shim
            containers.py  create, start, exit, delete
            execs.py       exec --detach
            runs.py        one run of the command line: deadline, last words
            processes.py   what it has started, by its pid file; terminals.py by its console socket
    child   view.py        the mounts that a run sees; then it is the runtime

What the shim is to a container stays as it is: parent (as subreaper: the runtime's own process ends, and the
container's becomes the shim's child), keeper of its streams, witness of its exit. The container's cgroup is made by
crid with its limits, before the runtime is run, so that kill -9 of anything leaves nothing behind that is not known.

Only shims of pods with such a handler import this, at their birth.
"""
