"""The outside world, one library or facility each, a folder per concept.

Not here: decisions (`core`) and processes (`services`).
"""
