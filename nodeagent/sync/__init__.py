"""From what is wanted to what runs: one worker for each pod, woken by the runtime's events."""
