"""Freezes what the `tokenizers` package answers with the shipped vocabulary, for `tests/deploy/test_address_match_zh.py`.

    python deploy/models/address-match-zh/freeze_tokens.py tests/deploy/golden/address-match-zh.json

Needs the `tokenizers` package; the test that reads the file does not. An answer
that changes while the vocabulary stays is a fault in one of the two tokenizers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

BUNDLE = Path(__file__).resolve().parent / "bundle"
MAX_LENGTH = 96
SAMPLES = 40
PAIRS = [
    ("江苏省盐城市滨海县天场镇秉义村建设路123号5幢2单元301室", "滨海县天场镇建设路123号5-2-301"),
    ("地址：北京市平谷区 教育西路４４号，５－６０１", "平谷区教育西路44号5号楼601房(代收)"),
    ("A座12F-3B", "ａ座１２ｆ－３ｂ"),
    ("八幢三单元一〇二室", "8幢3单元102室#"),
    ("垟塆村😀路1号", "䶮村1号"),
    ("", "路"),
    ("路" * 120, "1" * 99),
    ("1 2  3\t4\n5\u3000号", "12345号\u200b"),
]


def main(path: Path) -> None:
    """Writes the cases: the pairs above, and the first pairs of the traffic."""
    reference = BertWordPieceTokenizer(str(BUNDLE / "vocab.txt"), lowercase=True, strip_accents=True)
    reference.enable_padding(pad_to_multiple_of=16)
    reference.enable_truncation(MAX_LENGTH)
    lines = (BUNDLE.parent / "traffic.jsonl").read_text(encoding="utf-8").splitlines()[:SAMPLES]
    sent = [(row["a"], row["b"]) for row in map(json.loads, lines)]
    cases = []
    for a, b in PAIRS + sent:
        got = reference.encode_batch([(a, b)])[0]
        cases.append({"a": a, "b": b, "ids": got.ids, "mask": got.attention_mask, "types": got.type_ids})
    rows = ",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in cases)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
