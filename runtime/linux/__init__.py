"""The ground floor: what the Linux kernel offers, typed; it imports nothing else of ours."""
