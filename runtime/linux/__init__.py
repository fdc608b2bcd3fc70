"""The ground floor: what the Linux kernel offers, typed; it imports nothing else of ours.

In reading order:

    syscalls.py      what Python has no name for; fds.py, procs.py, pages.py the fds, processes and memory behind it
    channel.py       messages with fds between our processes; messages.py their bytes
    mountapi.py      mounts by fd; mounts.py, mountoptions.py, overlay.py made of them; mounttable.py what is there
    paths.py         paths inside a hostile tree; trees.py, treesize.py all of such a tree
    namespaces.py    namespaces of pods; userns.py those of users
    caps.py          what a process may do; seccomp.py, lsm.py, keyring.py, scheduling.py, rlimits.py likewise
    cgroups/         limits, usage, kill, freeze
    commands.py      programs of others, with a deadline
    ledger.py        effects outside the process; records.py metadata; database.py the SQLite file of both
    files.py         small files that are whole after a crash; failpoints.py where tests crash us
    notify.py        a word to the service manager; journal.py the lines of a daemon's log
    exclusive.py     what only one process may have
"""
