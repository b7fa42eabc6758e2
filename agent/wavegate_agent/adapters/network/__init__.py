"""The server as the device reaches it: MQTT, enrolment, update metadata, verification.

Not here: when to ask (`control`).
"""
