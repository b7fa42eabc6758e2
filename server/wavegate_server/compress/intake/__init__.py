"""How a model from outside becomes a bundle: bare ONNX files, torch modules, other frameworks refused.

Not here: registering it.
"""
