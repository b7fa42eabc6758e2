"""The dashboard: server-made pages that stay up to date. `create_web` is its only door."""

from wavegate_server.web.app import create_web

__all__ = ["create_web"]
