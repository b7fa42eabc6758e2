"""What is done to ONNX graphs, in subprocesses: inspect, clean, quantise, correct. The compressor's door to `onnx`."""
