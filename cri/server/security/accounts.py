"""passwd and group of images, read once per image: an image never changes, and most containers share a few."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from cri.server.security.users import Accounts, read_accounts

LIMIT = 256


class AccountCache:
    """Accounts by image id; the least recently used image is forgotten first."""

    def __init__(self) -> None:
        self._by_image: OrderedDict[str, Accounts] = OrderedDict()

    async def of_image(self, image_id: str, layers: Sequence[str]) -> Accounts:
        """The image's accounts; `layers` from top to bottom. Raises OSError (too large, no file)."""
        found = self._by_image.get(image_id)
        if found is None:
            found = await asyncio.to_thread(read_accounts, layers)
            self._by_image[image_id] = found
            if len(self._by_image) > LIMIT:
                self._by_image.popitem(last=False)
        else:
            self._by_image.move_to_end(image_id)
        return found
