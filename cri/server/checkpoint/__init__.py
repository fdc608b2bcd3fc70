"""Checkpoint and restore: a container's processes and files into an archive, and out of it again, through CRIU.

    take.py           one container into one archive; origin.py a container out of one
    criu.py           which criu there is, and whether it can work on this host
    conversation.py   CRIU's RPC: requests, the steps that it waits at, the answer
    dump.py           a running container into images
    revive.py         images into a container that was created, when it is started
    entries.py        CRIU's images as messages
    images.py         what may be in CRIU's images, asked before CRIU reads them
    names.py          which files they name, asked before CRIU opens them
    inspection.py     what came out of them, asked of the kernel before any of it runs:
    privileges.py         who the processes are
    holdings.py           what they have open
    documents.py      config.dump, spec.dump, status.dump: what checkpointctl and the peers read
    archive.py        the tar archive: written, and unpacked without trust
    workplace.py      directories on the way, and their entries in the ledger

The archive's layout is podman's, as containerd and CRI-O write it (github.com/checkpoint-restore/checkpointctl,
lib/metadata.go). Nothing in an archive has power: the processes and the files in the root file system come from it,
everything else from the request that restores it.
"""
