"""The shim: one process per pod, one thread, one poll loop. Parent and subreaper of everything that runs in the pod.

main.py       from the zygote's fork to the running loop
loop.py       epoll, timers
sandbox.py    the pod's namespaces, pins, shared memory
service.py    connections of crid: requests, replies, events
birth.py      a child between clone3 and execve
container.py  one container: start, exit, end
execs.py      one more process in a container
copying.py    outputs to the log and to whoever is attached; input from them
"""
