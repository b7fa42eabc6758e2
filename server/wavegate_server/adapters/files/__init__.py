"""Bytes that are no rows: artifacts, bundles, ONNX files, durable writes. Not here: who may have them (`services`)."""
