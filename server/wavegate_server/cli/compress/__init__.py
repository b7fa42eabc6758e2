"""`wavegate compress` and `compress-job`: asked for here or on the server, shown the same.

Not here: the compressor (`compress`).
"""
