"""A client for any CSI driver and any plugin's registration socket: what an agent on the node needs of them.

Callers give and get plain values; messages, channels and status codes of gRPC stay in here.
"""

from csi.client.driver import CsiDriver
from csi.client.errors import CsiError
from csi.client.registration import PluginInfo, RegistrationClient
from csi.client.values import AccessMode, NodeInfo, PluginIdentity, Usage, Volume, VolumeStats

__all__ = [
    "AccessMode",
    "CsiDriver",
    "CsiError",
    "NodeInfo",
    "PluginIdentity",
    "PluginInfo",
    "RegistrationClient",
    "Usage",
    "Volume",
    "VolumeStats",
]
