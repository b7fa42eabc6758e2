"""The MQTT broker and the server's two clients of it.

Not here: what messages mean (`services.ingest`, `services.delivery`).
"""
