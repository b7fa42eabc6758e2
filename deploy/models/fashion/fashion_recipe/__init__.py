"""How the fashion bundle is made; see `make.py` one folder up."""
