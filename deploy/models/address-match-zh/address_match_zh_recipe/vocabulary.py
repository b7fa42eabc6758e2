"""The tokens, and which of them are the same character to the model.

The tokenizer sets Chinese characters apart but keeps runs of digits and letters
together, so each of those has a token as first piece and one as continuation, and
the same again in full width. The graph maps all of them to one character before
anything else: the pre-processing needs no option of its own.
"""

from __future__ import annotations

import string

__all__ = ["characters_of", "vocabulary"]

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PIECES = string.digits + string.ascii_lowercase
_SIGNS = "#-,.()/:;&+_·、。《》【】~"
_FULL_WIDTH = 0xFEE0
_ALIKE = {"，": ",", "－": "-", "—": "-", "–": "-", "（": "(", "）": ")", "：": ":", "；": ";", "＃": "#", "．": "."}
_MORE_ALIKE = {"〇": "零", "／": "/", "＆": "&", "＋": "+", "＿": "_", "～": "~"}
_OFTEN = "省市区县镇乡村街道路巷弄号栋幢楼座单元室房门层东西南北中一二三四五六七八九十零两大小上下社居委会组屯庄自治州盟旗办事处新城"


def vocabulary() -> list[str]:
    """Tokens in id order: specials, digits and letters, signs, the characters of GB 2312."""
    wide = [chr(ord(char) + _FULL_WIDTH) for char in _PIECES]
    tokens = [*_SPECIAL, *_PIECES, *wide, *(f"##{char}" for char in (*_PIECES, *wide))]
    tokens += [*_SIGNS, *_ALIKE, *_MORE_ALIKE, *_gb2312()]
    return list(dict.fromkeys(tokens))


def characters_of(tokens: list[str]) -> tuple[list[int], int, int]:
    """(tokens,) the character each token stands for; the first that only names have; how many there are.

    The character before the first of the names is nobody's: it stands for those too rare to learn.
    """
    known = {char: at for at, char in enumerate(dict.fromkeys((*_SPECIAL, *_PIECES, *_SIGNS, *_OFTEN, "[RARE]")))}
    first_name = len(known)
    found = [known.setdefault(_plain(token), len(known)) for token in tokens]
    return found, first_name, len(known)


def _plain(token: str) -> str:
    char = token.removeprefix("##")
    char = _ALIKE.get(char, _MORE_ALIKE.get(char, char))
    if len(char) == 1 and "０" <= char <= "ｚ":
        return chr(ord(char) - _FULL_WIDTH)
    return char


def _gb2312() -> list[str]:
    """The Chinese characters of GB 2312, both levels, in its order."""
    rows = [bytes((row, cell)) for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF)]
    return [char for code in rows if len(char := code.decode("gb2312", errors="ignore")) == 1]
