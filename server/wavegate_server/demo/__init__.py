"""The demo: one server, eight devices, four versions. It drives the same commands and API that users have."""
