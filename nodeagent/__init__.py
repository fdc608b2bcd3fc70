"""The node agent: pods from manifests, driven to their desired state through the CRI."""
