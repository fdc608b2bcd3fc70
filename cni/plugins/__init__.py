"""The built-in plugins, one module each; each can also be run as a program: python -m cni.plugins.bridge.

In reading order:

    bridge.py       a pod on a bridge
    host_local.py   its address; portmap.py the host's ports that lead to it
    loopback.py     its lo
"""
