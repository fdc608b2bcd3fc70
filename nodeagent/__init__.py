"""The node agent: pods from manifests, driven to their desired state through the CRI.

main.py       the command's verbs; daemon.py the agent as a process, config.py what it is told; fsck_command.py
agent.py      all of it at work, on one node.py
manifests/    what is wanted, from files; pods/ what a pod may say
sync/         from what is wanted to what runs; translate/ in the CRI's words
volumes/      what pods mount; plugins.py finds the drivers
logs/         what containers write
api/          what the agent says of itself
ctl/          nodectl; doctor/ and fsck/ two of its verbs that are more than one file
up/           a whole node in the foreground
"""
