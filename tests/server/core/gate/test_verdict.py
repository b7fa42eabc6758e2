import json

import msgspec

from tests.server.core.gate.test_decision import evidence
from wavegate_server.core.gate.verdict import GateEvidence, Guards


def test_evidence_survives_json() -> None:
    given = evidence(guards=Guards(size=3, budget=1, silent=["a"]))

    stored = json.loads(json.dumps(msgspec.to_builtins(given)))

    assert msgspec.convert(stored, GateEvidence) == given
