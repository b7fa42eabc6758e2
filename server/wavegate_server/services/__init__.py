"""The server's running parts, each a thread or a job with a start and an end.

Not here: HTTP (`api`, `web`) and decisions (`core`).
"""
