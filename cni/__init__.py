"""Pod networking through the Container Network Interface, with a bridge network built in.

Nothing is imported here: a plugin that runs as a program must start without the parts that it does not need.
A runtime uses cni.network.Cni, with cni.attachment.Attachment and cni.default.default_conflist.

    network.py      Cni: attach a pod, detach it, check it; gate.py who may at the same time
      worker.py     the work in a thread: journal.py before it, cache.py after it; recovery.py undoes it
                    mending.py makes good what others have undone
      confdir.py    the network of the pods, read by conf.py, in versions.py; default.py where there is none
      attachment.py what is asked; result.py what comes back; errors.py what goes wrong; names.py checked at the border
    chain.py        the plugins of a network in order; call.py one of them
      runner.py     built in (builtin.py), or a program (external.py)
    plugin.py       what a built-in plugin is and works with: host.py; plugins/ the plugins
      skeleton.py   a plugin as a program, for others; podnetns.py enters the pod; install.py puts it where they look
      bridge        bridge_conf.py, bridges.py, ports.py, podlink.py, vlans.py, bridge_check.py, rtnl/, sysctl.py
      host-local    ipam.py, ranges.py, leases.py
      portmap       portmappings.py, firewall.py, ruleset.py, nftables.py, conntrack.py, localhost6.py
"""
