"""OCI images: pulled or imported, verified, unpacked into overlay layers shared between containers.

    reference -> registry/ | archive/ | build   sources of manifests and blobs
              -> arrivals -> content            blobs, verified, by digest
              -> unpack/ -> layers              directories for overlayfs, by chain id
              -> catalog                        images by id and name
              -> snapshots                      the writable layer of each container

The rest of the node talks to ImageStore and to nothing else in here.
"""

from images.errors import ImageError
from images.image import Image
from images.progress import Progress
from images.registry.credentials import Auth
from images.store import ImageStore, Usage

__all__ = ["Auth", "Image", "ImageError", "ImageStore", "Progress", "Usage"]
