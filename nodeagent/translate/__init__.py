"""From v1.Pod to CRI messages: pure functions, one module for each part of a pod.

In reading order:

    sandbox.py     a pod; network.py its names
    container.py   a container; env.py, resources.py, security.py its parts
    marks.py       labels and annotations by which the agent knows both again
"""
