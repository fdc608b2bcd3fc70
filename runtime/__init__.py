"""The container runtime: OCI bundles become processes in namespaces, cgroups and an overlay root filesystem.

It knows nothing of images, CNI, CRI or Kubernetes. In the order of a container's way, by the process that runs it:

    crid     spec.py           what can be asked for, as values that travel as JSON
             client.py         Runtime: the pods; pod.py one, running.py what runs in it; calls.py, events.py below them
             preparation.py    what is worked out beforehand: separation.py, processplan.py, podcgroup.py, state.py
             watchers.py       containers that are paused while another one is born
             launcher.py       starts the zygote, and starts it again; spare.py has a shim forked in advance
    zygote   zygote.py         forks shims; trial.py tries the kernel
             words.py          is first and, with gathering.py and rehearsal.py, keeps shims small
             scouts.py         go ahead of a shim's children, which are quicker for it; specimen.py what they carry
    shim     shim/             one process per pod; external/ where an OCI runtime of others makes the containers
             container.py      a container as its shim holds it; logs.py, status.py what it writes and what it hears
             recovery.py       what a shim leaves behind that is killed
    child    init.py           a container's first process; exec.py one more; criu.py one from a checkpoint
             podinit.py        the first process of a shared PID namespace; heir.py where a user namespace owns it
             rootfs.py         the plan of the tree; tree.py, mounting.py, devices.py, protections.py its steps
             streams.py        the three streams; arrival.py into a PID namespace of others; process.py the rest
    all      errors.py         how failures travel; signals.py a clean signal state
"""
