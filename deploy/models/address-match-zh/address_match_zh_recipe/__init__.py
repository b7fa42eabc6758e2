"""Stages of `make.py`: real place names, pairs made from them, the model."""
