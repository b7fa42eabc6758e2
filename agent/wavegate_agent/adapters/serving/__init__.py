"""The worker's side of the process border: the only place on a device with numpy and ONNX Runtime.

Never imported by `control`.
"""
