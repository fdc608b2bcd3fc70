"""Pod networking through the Container Network Interface, with a bridge network built in."""

from cni.attachment import Attachment
from cni.default import default_conflist
from cni.errors import CniError, InvalidConfig
from cni.network import Cni
from cni.result import Result

__all__ = ["Attachment", "Cni", "CniError", "InvalidConfig", "Result", "default_conflist"]
