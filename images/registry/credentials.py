"""What a puller knows about itself; apart from what is done with it, which needs an HTTP client."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from images.registry.hosts import Host


@dataclass(frozen=True, slots=True)
class Auth:
    """What a puller knows, field by field as in CRI's AuthConfig; never printed."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    #: The registry that all this is for; "" for any.
    server_address: str = ""

    def fits(self, host: Host) -> bool:
        """Whether these credentials are meant for a server."""
        address = self.server_address
        return not address or host.name in (address, urlsplit(address).netloc)

    @property
    def basic(self) -> str:
        """The Authorization header of HTTP Basic."""
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"
