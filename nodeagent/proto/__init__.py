"""Messages of the interfaces that the agent itself serves or calls beside CRI and CSI."""
