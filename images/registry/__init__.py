"""Registries: the pulling half of the OCI distribution-spec 1.1, over aiohttp."""
