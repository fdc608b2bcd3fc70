"""Pods from a directory of manifests: text to documents, a watch, and what is wanted when files are broken.

In reading order:

    directory.py   the directory, watched; looks.py what no watch tells of
    documents.py   a file to documents; text.py YAML as Kubernetes reads it
    catalogue.py   what is wanted; lastgood.py the last good version of each file
"""
