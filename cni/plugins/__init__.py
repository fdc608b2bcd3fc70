"""The built-in plugins, one module each; each can also be run as a program: python -m cni.plugins.bridge."""
