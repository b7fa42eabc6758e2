"""Stages of `make.py`: the simulator, the network, the classical fit it is compared with."""
