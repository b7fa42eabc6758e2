"""The outside world, one library or facility each; a folder per side of a border.

Not here: decisions (`core`) and wiring (`control`).
"""
