"""The parent's side of a job: which candidates are made, repaired, judged and reported.

Imports neither onnx nor torch.
"""
