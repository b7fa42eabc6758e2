"""The control process: the machines at work, their threads, messages and wiring.

Not here: decisions (`core`), any library (`adapters`).
"""
