import hashlib

import pytest

from wavegate_shared.enrolment import TokenParts, ca_fingerprint, format_token, parse_token
from wavegate_shared.errors import TrustError

PARTS = TokenParts("kiosk-1.berlin_2", b"\xfb" * 32, b"\xff\x00" * 16)
TOKEN = format_token(PARTS)


def test_parse_gives_back_what_format_was_given() -> None:
    """The id holds dots, the secret every base64url character."""
    assert parse_token(TOKEN) == PARTS
    assert parse_token(f"  {TOKEN}\n") == PARTS


def test_a_token_survives_a_command_line() -> None:
    assert not set(TOKEN) & set(" '\"\\$&|<>;+/=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "wg1",
        TOKEN.replace("wg1", "wg2"),
        TOKEN[:-1],
        TOKEN + "A",
        TOKEN + "=",
        TOKEN.replace("kiosk", "ki/sk"),
        TOKEN.replace("kiosk-1.berlin_2", ""),
        ".".join(TOKEN.split(".")[:-1]),
        "wg1." + "x" * 300,
        TOKEN[:-1] + "B",  # the same bytes, spelled with other padding bits
    ],
)
def test_anything_else_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(TrustError) as caught:
        parse_token(text)
    assert caught.value.code == "token_invalid"
    assert not text or text not in caught.value.detail


def test_the_fingerprint_is_of_the_der_bytes() -> None:
    assert ca_fingerprint(b"der") == hashlib.sha256(b"der").digest()
