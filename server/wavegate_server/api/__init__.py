"""The REST API: thin endpoints over the adapters, one module per domain. `create_api` is its only door."""

from wavegate_server.api.app import create_api

__all__ = ["create_api"]
