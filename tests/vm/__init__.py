"""A virtual machine with unified cgroup v2, for what a hybrid host cannot show: `python -m tests.vm`."""
