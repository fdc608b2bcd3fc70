"""A machine with unified cgroup v2, AppArmor or SELinux, for what the host cannot show: `python -m tests.vm`."""
