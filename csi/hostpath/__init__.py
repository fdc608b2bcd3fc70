"""A CSI driver whose volumes are directories of the node: the simplest driver that keeps the whole contract.

It is a process of its own, like any driver: the agent knows it by its sockets only and it may die at any moment.
"""
