"""From what is wanted to what runs: one worker for each pod, woken by the runtime's events.

In reading order:

    worker.py           looks, does the next thing, says how it stands, sleeps; tools.py what it works with
    runtime_events.py   who is woken
    observed.py         what runs
    plan.py             what to do next, a pure function; backoff.py when to try again
    starting.py         doing it; pulls.py images, hooks.py lifecycle hooks, pod_files.py the agent's own files
    ending.py           the end in a sandbox; teardown.py what is left; eviction.py pods that take too much disk,
                        by disk_usage.py
    status.py           how the pod stands; last_words.py what a container has said; journal.py what has happened
    failpoints.py       where tests kill the agent
"""
