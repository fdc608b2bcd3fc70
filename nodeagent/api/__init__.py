"""The agent's status on a local socket: what it runs, what it waits for and why. Only root can open it."""
