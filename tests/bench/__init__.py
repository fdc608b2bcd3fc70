"""The benchmark: drives any CRI socket through its RPCs and says how fast, and at what cost.

    python -m tests.bench                                 crid beside containerd, both started here
    python -m tests.bench --socket crid --vs none         crid alone
    python -m tests.bench --vs containerd+crun            containerd with an OCI runtime that is installed
    python -m tests.bench --socket unix:///run/a.sock --vs unix:///run/b.sock --only cycle,exec

It measures and asserts nothing, so that no test run depends on how busy a machine is. Two runtimes take turns, round by
round, so that what else the machine does hits both. Started by hand or by `make bench`, as root.

    __main__.py     the command line, and the order of things
    runtimes.py     a runtime under measurement
    started.py      one that is started here: crid.py, containerd.py
    pods.py         the requests
    scenarios.py    what is done and timed; full_node.py with many pods
    machine.py      CPU time, memory and process trees, from /proc
    report.py       percentiles and the Markdown table
    payload.py      the images
"""
