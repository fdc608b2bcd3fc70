"""Container logs on disk: their lines, reading and following them, rotation."""
