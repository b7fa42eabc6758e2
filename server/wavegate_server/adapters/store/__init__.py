"""Writes to the database, one module a thing, each in its caller's transaction.

Not here: what to write (`core`), read models (`reads`).
"""
