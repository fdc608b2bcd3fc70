"""Pod networking through the Container Network Interface, with a bridge network built in.

Nothing is imported here: a plugin that runs as a program must start without the parts that it does not need.
A runtime uses cni.network.Cni, with cni.attachment.Attachment and cni.default.default_conflist.
"""
