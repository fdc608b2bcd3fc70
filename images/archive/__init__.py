"""Images in files: an OCI image layout, as a directory or as a tar, and what `docker save` writes.

An archive is as hostile as a registry: names in it only select members, and everything is verified as it is taken in.

    opening.py    which images there are
    source.py     one of them as a source of images
    files.py      the members below both, by name
"""
