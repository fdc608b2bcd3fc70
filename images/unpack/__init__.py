"""A layer's tar becomes a directory for overlayfs: extracted on its own, then settled on the layers below it.

Extraction needs nothing but the stream, so all layers of an image are extracted at once while they download.
Settling needs the layers below: whiteouts, links to files that are only there, and the attributes of directories that
the archive passes through without naming them.

    layer.py        both, one after the other
    extract.py      the stream into tree.py, a directory reached by fds; names.py what a member may be called
    settle.py       what is left, with merged.py, the layers below
    attributes.py   owner, mode, times, extended attributes
"""
