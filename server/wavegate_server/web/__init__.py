"""The dashboard: server-made pages that stay up to date. `add_web` is its only door."""

from wavegate_server.web.app import add_web

__all__ = ["add_web"]
