"""Workers that other Python environments run, by path: each needs its converter and numpy, and nothing of Wavegate.

All have one interface. Job on standard input: {"source", "target", "feeds": npz, "inputs": [names], "got": npz to write}.
Answer, the last line: {"tool", "files": [names], "p50_ms", "notes": [..]}; a worker that fails ends with its traceback. The result is loaded from
the files it was written to and run on the feeds, `<sample>.<input>`; its outputs are kept as `<sample>.<place>`.
"""
