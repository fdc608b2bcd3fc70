"""OCI images: pulled or imported, verified, unpacked into overlay layers shared between containers.

In reading order:

    reference.py -> registry/ | archive/ | build.py   a source.py of manifests and blobs, for a platform.py
                 -> intake.py                          from manifest to finished layers, seen as one transfer.py
                 -> arrivals.py -> content.py          blobs.py on their way, then verified, by digest.py
                 -> inflate.py -> unpack/ -> layers.py directories for overlayfs, by chain id
                 -> catalog.py                         image.py by id and name
                 -> snapshots.py                       the writable layer of each container; changes.py what is in it

    store.py      images behind one object, containers.py their containers' layers: the rest of the node talks to these
    documents.py  what of an image is JSON, checked as it is read; media.py its kinds; tar/ what is tar
    limits.py     how much an image may cost; progress.py how far it is; errors.py what can go wrong
    collect.py    garbage: what no image, container or leases.py refers to goes to trash.py
    flights.py    done once, asked for by many; workers.py threads for what blocks; memory.py the C library's
"""

from images.containers import ContainerLayers, Usage
from images.errors import ImageError
from images.image import Image
from images.progress import Progress
from images.registry.credentials import Auth
from images.store import ImageStore

__all__ = ["Auth", "ContainerLayers", "Image", "ImageError", "ImageStore", "Progress", "Usage"]
