"""The gate after a wave: evidence in, a decision with its sentence out.

Not here: what follows from it (`core.rollout`).
"""
