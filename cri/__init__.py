"""The Container Runtime Interface: its messages, a client for any CRI socket, and our server, crid."""
