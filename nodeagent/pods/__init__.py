"""What a v1.Pod may say: its fields, checks, defaults and identity. Knows nothing of files or of the CRI."""
