"""The compressor's pure rules: budget, recipes, structures, paired statistics.

Not here: anything that touches a model.
"""
