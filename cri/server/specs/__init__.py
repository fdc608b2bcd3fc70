"""From requests to what the runtime makes: checked, settled, and in the runtime's words.

sandbox.py       a pod; etc_files.py what lies in /etc of all its containers
container.py     a container: oci.py puts its document together
  process.py     what runs (signals.py: how it is stopped)
  mounts.py      what it sees; declared_volumes.py, sources.py where that comes from
  devices.py     its device nodes and the rules for them
  resources.py   its limits
"""
