"""One device: its head, its history, and the chain of reasons for its version."""

from sqlalchemy import Engine
from sqlmodel import Session

from tests.server.adapters.conftest import SEEDED_AT as NOW
from tests.support.seed import MODEL
from wavegate_server.adapters.database.tables import DeviceReport
from wavegate_server.adapters.reads.device import SENTENCES, device_detail, device_history, device_why


def test_the_head_adds_up_what_the_reports_say(session: Session) -> None:
    detail = device_detail(session, NOW, "locker-hz-01")
    history = device_history(session, "locker-hz-01")
    assert detail.bytes_fetched == sum(entry.bytes_fetched for entry in history)
    assert (detail.row.version, detail.assigned_version, detail.acknowledged) == (5, 5, True)
    assert [(slot.slot, slot.model) for slot in detail.slots] == [(MODEL, MODEL)]


def test_history_is_newest_first_and_carries_the_signed_figures(session: Session) -> None:
    history = device_history(session, "locker-hz-01")
    assert [entry.version for entry in history] == [5, 4, 3, 2, 1]
    refused = history[2]
    assert (refused.outcome, refused.code, refused.golden_value) == ("refused", "golden_failed", 0.712)
    assert refused.swap_ms is None


def test_the_reasons_go_from_what_runs_to_what_the_gate_said(session: Session) -> None:
    why = device_why(session, "locker-hz-01")
    codes = [step.code for step in why.steps]
    assert codes == ["running", "assigned", "proven", "proven", "refused", "gate", "rollout"]
    assert why.steps[1].values["wave"] == "1"  # people count from one
    refused = why.steps[4]
    assert refused.sentence == (
        "It refused v3 before the swap (golden_failed: accuracy 0.712 < 0.965) and went on serving v2."
    )
    assert refused.rollout == "r3-address-match"


def test_a_version_that_came_back_is_said_to_have_proved_itself_before(seeded_engine: Engine) -> None:
    """After a rollback its report has no live requests: "0 live requests served" sounded as if it had proved nothing."""
    with Session(seeded_engine) as session:
        first = next(entry for entry in device_history(session, "locker-hz-01") if entry.version == 2)
        session.add(
            DeviceReport(
                device_id="locker-hz-01",
                received_at=NOW,
                assignment_seq=99,
                rollout_id="r5-address-match",
                model=MODEL,
                version=2,
                outcome="proven",
                served=0,
                body={"active_version": 2},
                envelope=b"{}",
            )
        )
        session.flush()
        back = next(step for step in device_why(session, "locker-hz-01").steps if step.code == "proven_again")
        session.rollback()
    assert back.sentence == (
        f"It is back on v2, which had proved itself here before on {first.served} live requests; golden set passed."
    )


def test_a_version_proved_by_own_requests_says_so(seeded_engine: Engine) -> None:
    with Session(seeded_engine) as session:
        body = {"active_version": 9, "self_requests": 48}
        row = DeviceReport(
            device_id="locker-hz-01",
            received_at=NOW,
            assignment_seq=99,
            model=MODEL,
            version=9,
            outcome="proven",
            served=2,
            body=body,
            envelope=b"{}",
        )
        session.add(row)
        session.flush()
        assert device_history(session, "locker-hz-01")[0].self_requests == 48
        said = next(step for step in device_why(session, "locker-hz-01").steps if step.code == "proven_own")
        session.rollback()
    assert said.sentence == (
        "It proved v9: golden set passed, 2 live requests served, and 48 of its own, because live ones did not come."
    )


def test_a_device_that_never_got_anything_says_so(session: Session) -> None:
    assert [step.code for step in device_why(session, "locker-den-06").steps] == ["nothing"]


def test_every_sentence_names_its_places_only() -> None:
    names = "seq model version rollout wave served own devices code detail active verdict sentence state"
    places = dict.fromkeys(names.split(), "x")
    assert all("{" not in text.format_map(places) for text in SENTENCES.values())
