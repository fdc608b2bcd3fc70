"""The calls of the interface, a file for each, or for those that are one question in several forms.

A module's entry has the call's name and takes the daemon and the request.

    pods         run_pod_sandbox.py, stop_pod_sandbox.py, remove_pod_sandbox.py, update_pod_sandbox_resources.py
    containers   create_container.py, start_container.py, stop_container.py, remove_container.py,
                 update_container_resources.py, reopen_container_log.py
    commands     exec_sync.py, streams.py
    images       image_calls.py
    what is      list_pod_sandboxes.py, list_containers.py (in messages cut by batches.py), pod_sandbox_status.py,
                 container_status.py, runtime_info.py, get_container_events.py
    what it uses pod_sandbox_stats.py, container_stats.py, metrics.py
    checkpoints  checkpoint_container.py, checkpoint_pod.py, restore_pod.py
"""
