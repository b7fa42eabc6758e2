"""The rollout's rules: waves, steps, operators' actions.

Data in, transitions out. Not here: judging a wave (`core.gate`).
"""
