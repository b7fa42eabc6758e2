"""How a model is scored and timed: samples, the measuring subprocess, its answers.

Not here: what the figures mean (`search`).
"""
