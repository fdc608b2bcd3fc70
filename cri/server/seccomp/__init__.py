"""Which system calls a container may use: from a profile by name to a program that the kernel runs.

choice.py     what a container asks for
default.py    RuntimeDefault, as data
rules.py      what is left of a profile for one set of capabilities on this machine
bpf.py        that, as BPF; compiled.py keeps it in files by content
oci.py        that, for a runtime that compiles it itself
"""
