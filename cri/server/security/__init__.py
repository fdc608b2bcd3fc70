"""Who a container is and what it may, as a request's security context says. Seccomp is in a package of its own.

users.py             its user and groups; accounts.py what its image knows of them
user_namespaces.py   whose ids those are on the host
capabilities.py      which of root's powers it has
sysctls.py           which of the kernel's settings are its pod's
apparmor.py, selinux.py   the profile, the label that the kernel's security modules know it by
"""
