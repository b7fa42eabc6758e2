"""The device side of Wavegate."""
