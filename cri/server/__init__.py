"""crid, the CRI daemon: one file per RPC or verb group, and around them what all of them share."""
