"""The `wavegate` command, one module a word.

Not here: calls of the API (`client`) and anything that runs on (`services`).
"""
