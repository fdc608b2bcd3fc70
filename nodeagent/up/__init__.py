"""A whole node in the foreground: `nodeagent up` and `nodeagent down`.

- service.py: one daemon: started, ready, restarted when it dies, stopped
- supervisor.py: all of them, the signals, and the orphans that they leave
- family.py: who reaps whom, and who dies with whom
- places.py: where everything is, and the command lines of the daemons
- node.py: the daemons step by step, and what their agent says of the pods
- demo.py: a node of its own with a demo pod, of which nothing is left at the end
- show.py: what the operator sees
- up.py, down.py: the two verbs
"""
