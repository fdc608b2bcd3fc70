"""Registries: the pulling half of the OCI distribution-spec 1.1, over aiohttp.

In reading order:

    source.py       a registry as a source of images
    hosts.py        which hosts stand for it
    client.py       one repository, through whichever host answers; download.py a blob to its end; retries.py when again
    http.py         one request: limits, deadlines, redirects; resolver.py names without waiting in others' threads
    auth.py         from credentials.py and a challenge.py to what a request shows
"""
