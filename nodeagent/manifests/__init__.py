"""Pods from a directory of manifests: text to documents, a watch, and what is wanted when files are broken."""
