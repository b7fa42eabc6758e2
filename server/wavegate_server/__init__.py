"""The server side of Wavegate."""
