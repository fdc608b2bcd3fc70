"""Volumes of pods: directories made, drivers called, everything undone again, whatever dies in between."""
