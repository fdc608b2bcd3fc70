"""crid, the CRI daemon: one file per RPC or verb group, and around them what all of them share.

In reading order:

    main.py          the process: config.py (read by settings.py), listening.py, assembly.py its parts in a daemon.py
    recovery.py      the start after whatever ended it; tidying.py, janitor.py what is undone later; reset.py all of it
    service.py       every call: answers.py whose it is, errors.py how it fails, joins.py when it is there twice
    store.py         the sandboxes and containers of pods.py, as records (encoding.py); exits.py what happens to them

    pods             run_pod_sandbox.py, sandbox_spec.py, sysctls.py, user_namespaces.py, pod_network.py,
                     sandbox_end.py, stop_pod_sandbox.py, remove_pod_sandbox.py, update_pod_sandbox_resources.py
    containers       create_container.py, start_container.py, stop_container.py (signals.py), remove_container.py,
                     update_container_resources.py (limits.py, former_limits.py), reopen_container_log.py
    container_spec.py  from a request to what is started: oci.py puts the document together
      who            users.py, accounts.py and image_files.py, process.py, capabilities.py
      what it sees   mounts.py, declared_volumes.py, sources.py, devices.py, cdi/, etc_files.py, resources.py
      confinement    apparmor.py, selinux.py, seccomp_choice.py, seccomp.py (seccomp_profile.py, seccomp_rules.py,
                     seccomp_bpf.py, seccomp_oci.py)
      by whom        handlers.py
    commands         exec_sync.py, streams.py, sessions.py, streaming/
    images           image_calls.py, import_image.py
    what is there    list_pod_sandboxes.py, list_containers.py, pod_sandbox_status.py, container_status.py, statuses.py,
                     batches.py, runtime_info.py, events.py, get_container_events.py
    what is used     container_stats.py, pod_sandbox_stats.py, usage.py, layer_usage.py, network_usage.py, metrics.py,
                     metric_samples.py, metric_table.py, open_files.py
    checkpoints      checkpoint_container.py, checkpoint_pod.py, restore_pod.py, checkpoint/
    plugins          nri/
"""
