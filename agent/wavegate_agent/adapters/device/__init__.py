"""What this machine is and offers: facts from /proc and /sys, systemd, memory, priorities.

Not here: networks and files.
"""
