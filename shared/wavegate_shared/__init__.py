"""Words and rules both sides of Wavegate speak; pure: no clock, no files, no sockets."""

__version__ = "0.1.0"
