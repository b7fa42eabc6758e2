"""From the broker into the database, acknowledged after the commit.

Not here: what a batch amounts to (`core.ingest`).
"""
