"""The control process's side of the process border: starts, tests, swaps and watches workers.

No numpy, no ONNX Runtime.
"""
