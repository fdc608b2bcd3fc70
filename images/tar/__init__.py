"""A tar reader for layers: streaming, bounded, and about ten times as fast as the standard library's.

A layer of 25,000 files is read while it is being downloaded, so the cost of a header counts: tarfile spends more on
one than the kernel does on creating the file. It also has to know what layers hold in practice (ustar, GNU and pax
headers, extended attributes, sparse files) and nothing else; it makes no file, it only tells.

    stream.py     bytes in exact amounts
    header.py     one block of 512 bytes; pax.py what overrules it; sparse.py where the holes are
    reader.py     the members one after another
"""
