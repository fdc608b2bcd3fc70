"""Container logs on disk: their lines, reading and following them, rotation.

In reading order:

    lines.py      the format
    opening.py    a file that is a log, and no link to one
    reader.py     one file; past.py those before it; follow.py those to come
    rotation.py   a file that has grown too large
"""
