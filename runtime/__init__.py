"""The container runtime: OCI bundles become processes in namespaces, cgroups and an overlay root filesystem."""
