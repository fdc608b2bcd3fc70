"""The messages of CSI and of plugin registration, with their services read from the descriptors."""
