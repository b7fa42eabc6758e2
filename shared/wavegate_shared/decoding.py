"""What a decoder may raise for bytes from outside: one name for it, because the obvious one is not all of it.

msgspec raises `DecodeError` for wrong JSON and wrong schemas, but `UnicodeDecodeError` for broken UTF-8 and `RecursionError`
for deep nesting (found by mutating messages: about one in fifty). A peer can send either at will.
"""

import msgspec

__all__ = ["MALFORMED"]

MALFORMED: tuple[type[Exception], ...] = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""For `except MALFORMED as error:` around every decode of bytes from outside."""
