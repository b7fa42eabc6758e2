"""Freezes what the `tokenizers` package answers, for `tests/shared/test_wordpiece.py`.

    python deploy/models/address-match/freeze_wordpiece.py tests/shared/golden/wordpiece.json

Needs the `tokenizers` package; the test that reads the file does not. Run it only
to add cases: an answer that changes is a fault in one of the two tokenizers.
"""

from __future__ import annotations

import json
import random
import string
import sys
import tempfile
from pathlib import Path

from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

WORDS = (
    "street avenue village flat unit st north port the king queen new green hill un aff able ing ton wood ville "
    "strasse cafe 北 京 市 海 淀 区 路 号 東 ア あ ー"
)
PAIRS = [
    ("6 King Street, Newton", "6 king st newton"),
    ("Café-Straße 12/3", "cafe strasse 12 / 3"),
    ("北京市海淀区北路12号", "海淀区 北路 12 号"),
    ("unaffable  \t greenwood\nville", "UNAFFABLE GREENWOODVILLE"),
    ("", ""),
    ("   ", "flat"),
    ("a" * 100, "b" * 101),
    ("flat 1 " * 20, "unit 2"),
    ("unit 2", "flat 1 " * 20),
    ("flat 1 " * 20, "flat 1 " * 20),
    ("flat " * 21, "flat 1 " * 20 + "7"),
    ("İstanbul ÅØ œuvre ﬁ", "e\u0301 \u0301x 한글"),
    ("zero\u200bwidth\u00a0space\u3000wide\ufffdx\x00y\x1cz\x85w\u2028v", "soft\u00adhyphen"),
    ("🙂 street🙂 $5 + 3 = ^8 ~ `q` |", "«no. 4»、“5” — ½ ² Ⅷ"),
]
ALPHABET = "abegnorstAEIN  .,-'/()#&1234567éÉüßıÅø北京路東アあー한、！\u3000\u00a0\t\n\u200b\u0301🙂½²$+<=>^`|~"
LENGTHS = (8, 16, 31, 48)


def main(path: Path) -> None:
    """Writes the vocabulary and, for each case, the reference's three rows."""
    rng = random.Random(5)

    def noise() -> str:
        return "".join(rng.choice(ALPHABET) for _ in range(rng.randint(0, 40)))

    pairs = PAIRS + [(noise(), noise()) for _ in range(24)]
    vocab = _vocab()
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "vocab.txt")
        listed.write_text("\n".join(vocab) + "\n", encoding="utf-8")
        cases = []
        for lowercase in (True, False):
            reference = BertWordPieceTokenizer(str(listed), lowercase=lowercase, strip_accents=lowercase)
            reference.enable_padding(pad_to_multiple_of=16)
            for length in LENGTHS:
                reference.enable_truncation(length)
                cases += [_case(reference, pair, length, lowercase) for pair in pairs]
                cases += [_case(reference, pair[0], length, lowercase) for pair in pairs[:16]]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    head = json.dumps(vocab, ensure_ascii=True)
    path.write_text(f'{{"vocab": {head},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")


def _case(
    reference: BertWordPieceTokenizer, text: tuple[str, str] | str, length: int, lowercase: bool
) -> dict[str, object]:
    got = reference.encode_batch([text])[0]
    return {
        "text": text,
        "max_length": length,
        "lowercase": lowercase,
        "input_ids": got.ids,
        "attention_mask": got.attention_mask,
        "token_type_ids": got.type_ids,
    }


def _vocab() -> list[str]:
    characters = string.ascii_letters + string.digits + ".,-'/()#&、"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *WORDS.split()]
    return list(dict.fromkeys([*tokens, *(f"##{token}" for token in tokens[5:])]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
