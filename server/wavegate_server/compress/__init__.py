"""The compressor: candidates, measurements, verdicts.

Heavy libraries are imported only in its subprocesses. Not here: pure rules (`core.compress`).
"""
