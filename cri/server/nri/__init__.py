"""NRI, the Node Resource Interface: plugins that see every pod and container, and may change containers on their way.

    plugin --unix socket--> mux.py: two connections in one      the plugin's process, one of ours or anybody's
                            ttrpc.py: frames of calls
                            connection.py: calls in both directions
                            plugin.py: one plugin, from registration to its end; calls.py what it subscribes to
    nri.py                  where the interface's calls come to at each step of a pod's and a container's life
      plugins.py            who is connected, in which order; launching.py those that are installed; config.py [nri]
      view.py, messages.py  our pods and containers in the interface's words; resources.py the limits
      merging.py, owners.py the answers of all plugins as one, conflicts found
      validator.py          the built-in validator
      adjusting.py          the one answer put into a container's OCI document, with adjusting_linux.py and
                            adjusting_limits.py, or refused (refusal.py)
      changes.py            what plugins want of containers that exist
      errors.py             what can go wrong with a plugin

A plugin can delay one request, by its deadline, and fail the requests that it is asked about. It can do nothing else
to the node. With no plugin connected nothing here is built, sent or waited for.
"""
