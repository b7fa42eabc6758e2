"""A bundle's model in another runtime's format, made in an environment of its own and compared.

Not here: our own variants.
"""
