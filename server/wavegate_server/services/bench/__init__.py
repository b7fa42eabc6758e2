"""Bench rounds: candidates measured beside their original on a device of a class.

Not here: judging them (`compress.search`).
"""
