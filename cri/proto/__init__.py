"""Messages of the CRI, generated from api.proto by generate.py."""
