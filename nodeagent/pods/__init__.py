"""What a v1.Pod may say: its fields, checks, defaults and identity. Knows nothing of files or of the CRI.

In reading order:

    pod.py        a pod as the agent holds it
    shape.py      a document against fields.py, the table of what this agent makes of each field
    validate.py   its values: validate_containers.py, validate_security.py, validate_volumes.py
    names.py, quantity.py, env_sources.py   the kinds of values
    problems.py   what is wrong, and where
    qos.py        the quality of service that follows
"""
