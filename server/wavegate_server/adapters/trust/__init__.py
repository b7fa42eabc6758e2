"""Whoever holds keys: certificate authority, signing keys, image repository, director, enrolment.

Nothing else signs.
"""
