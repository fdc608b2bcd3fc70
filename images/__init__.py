"""OCI images: pulled or imported, verified, unpacked into overlay layers shared between containers."""
