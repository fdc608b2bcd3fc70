"""Container Device Interface (tags.cncf.io/container-device-interface, SPEC.md 1.1): devices as vendors describe them.

names.py     vendor.example/class=name, and the annotations that carry such names
specs.py     one specification file: read, checked, refused
registry.py  the directories of specification files, and devices by name
edits.py     what a device means for a container's OCI document

Specification files belong to the node's administrator; names come from clients and are only looked up.
"""
