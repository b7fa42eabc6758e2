"""Subprocesses of a job and what they leave: limits, sandbox, cached steps. Knows nothing of models."""
