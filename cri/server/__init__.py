"""crid, the CRI daemon: one file per call of the interface, and around them what all of them share.

In reading order:

    main.py          the command; starting.py what it needs first: config.py (read by settings.py), listening.py
    serving.py       the daemon: assembly.py puts its parts into a daemon.py
    service.py       every call: answers.py whose it is, errors.py how it fails, joins.py when it is there twice
    store.py         the sandboxes and containers of pods.py, as records (encoding.py) and as messages (statuses.py)
    calls/           what each call does

    specs/           from a request to what is started; security/, seccomp/ how it is confined, cdi/ with which devices
    handlers.py      by which runtime; pod_network.py in which network, and how fast (bandwidth.py)
    image_files.py   what is looked up in an image that is not mounted; import_image.py images without a registry
    sessions.py      Exec, Attach and PortForward as streaming/ sees them
    limits.py        new limits for what runs, all of them or none (former_limits.py)
    usage/           what containers use
    exits.py         what happens without a call, and events.py tells; sandbox_end.py a pod's end, whoever asked for it
    checkpoint/      a container as an archive, and back
    nri/             plugins that have a say in all this

    recovery.py      the start after whatever ended crid; tidying.py, janitor.py what is undone later; reset.py all
"""
