"""A client for any CSI driver and any plugin's registration socket: what an agent on the node needs of them.

Callers give and get plain values; messages, channels and status codes of gRPC stay in here.

    driver.py         a driver's calls; values.py what goes in and comes out
    registration.py   how a driver is found
    connection.py     the channel below both; errors.py its one exception
"""

from csi.client.driver import CsiDriver
from csi.client.errors import CsiError
from csi.client.registration import PluginInfo, RegistrationClient
from csi.client.values import AccessMode, NodeInfo, Volume

__all__ = [
    "AccessMode",
    "CsiDriver",
    "CsiError",
    "NodeInfo",
    "PluginInfo",
    "RegistrationClient",
    "Volume",
]
