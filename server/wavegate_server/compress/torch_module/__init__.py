"""A bundle's torch module: loaded, and exported as ONNX. Imported only in subprocesses that are fenced in."""
