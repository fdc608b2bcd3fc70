"""Volumes through the Container Storage Interface: a node client and a hostpath driver."""
