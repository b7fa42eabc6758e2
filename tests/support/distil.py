"""Tests that need the extra [distil] skip without it, and say so: `needs_distil()` at the top of the module."""

import pytest

__all__ = ["needs_distil"]


def needs_distil() -> None:
    """Skip the module where torch or safetensors are not installed."""
    for name in ("torch", "safetensors"):
        pytest.importorskip(name, reason=f"the extra [distil] is not installed (no {name}): pip install -e '.[distil]'")
