"""Compression on a model's page: jobs under way and finished, in both languages, and the forms."""

import re

import pytest
from fastapi.testclient import TestClient

from tests.support.web_server import Dashboard
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import CompressJob
from wavegate_server.adapters.store.compress_jobs import get_job, job_page
from wavegate_server.adapters.store.tokens import Role
from wavegate_server.web.compress_words import CompressWords, job_view
from wavegate_server.web.i18n import translator
from wavegate_shared.metrics import Direction, Metric

URL = "/models/address-match"
ACCURACY = Metric("accuracy", "share", Direction.UP)
ERROR = Metric("mean_absolute_error", "mm", Direction.DOWN)


def card(page: str, number: int) -> str:
    begin = page.index(f'id="job-{number}"')
    return page[begin : page.index("</article>", begin)]


def test_a_finished_job_leads_with_its_verdict_in_plain_words(client: TestClient) -> None:
    told = card(client.get(URL).text, 1)
    assert "The budget is met: int8-dynamic-per-channel is 71.3 % smaller and 2.47 × as fast" in told
    assert '<a class="version" href="#v2">v2</a>' in told
    assert "0.05 pt, between −0.12 pt and 0.31 pt" in told
    missed = card(client.get(URL).text, 2)
    assert "no candidate reaches size=-90%, drop=0.2pt" in missed
    assert "too few samples" in missed
    assert "满足预算：int8-dynamic-per-channel" in card(client.get(URL, headers={"Accept-Language": "zh"}).text, 1)


def test_the_picture_has_words_and_a_table_with_every_figure(client: TestClient) -> None:
    told = card(client.get(URL).text, 1)
    assert told.count('role="img" aria-labelledby="job-1-') == 2
    assert told.count("<desc id=") == 2
    assert told.count('<g class="point point-chosen on-front">') == 2
    assert len(re.findall(r'<path class="front" d="M', told)) == 3  # two charts and the key
    for name in ("original", "int8-dynamic-per-tensor", "float16", "int8-static-percentile"):
        assert name in told
    assert "it did not finish within 300 s" in told
    assert '<th scope="row">CPU time per inference</th>' in told
    assert "−71.3 %" in told


def test_a_job_under_way_shows_where_it_is_and_can_be_cancelled(client: TestClient) -> None:
    page = client.get(URL).text
    told = card(page, 4)
    assert "<b>layers2-heads6-ffn768</b>: distilling" in told
    assert "epoch 2, step 300 of 900" in told
    assert 'class="job-share" width="27.3"' in told
    assert 'action="/compress-jobs/4/cancel"' in told
    assert "waits for its turn" in card(page, 5)
    assert page.index('id="job-4"') < page.index('id="v5"') < page.index('id="job-1"')


def test_a_version_above_a_limit_is_marked(client: TestClient, shared: Dashboard) -> None:
    page = client.get(URL).text
    assert "2,972,000" in page
    assert "84.3 MFLOPs" in page
    assert shared.context.settings.class_limits
    assert "above the limit" not in page


def test_the_form_queues_a_job_and_comes_back_to_it(dashboard: Dashboard) -> None:
    with dashboard.client(Role.PUBLISHER) as publisher:
        page = publisher.get(URL).text
        assert 'value="size=-70%,drop=2pt' in page  # and what its SLO promises
        assert '<option value="1" selected>' in page
        answer = publisher.post(
            f"{URL}/compress", data={"version": "2", "budget": "size<=3MB", "class": "pi4", "minutes": "20"}
        )
    assert (answer.status_code, answer.headers["location"]) == (303, f"{URL}#job-6")
    with read(dashboard.context.engine) as session:
        job = get_job(session, 6)
    assert (job.version, job.budget, job.device_class, job.time_s) == (2, "size<=3MB", "pi4", 1200)
    assert job.created_by == "a-publisher"


@pytest.mark.parametrize(
    ("changes", "status", "at", "words"),
    [
        ({"budget": "smaller"}, 422, "budget", "not understood"),
        ({"budget": "size=-10%," * 40}, 422, "budget", "at most 300"),
        ({"version": "9"}, 404, "version", "no version 9"),
        ({"version": "x"}, 422, "version", "is no number"),
        ({"minutes": "0"}, 422, "minutes", "between 10 and"),
    ],
)
def test_a_wrong_form_stays_on_its_page_and_keeps_what_was_typed(
    dashboard: Dashboard, changes: dict[str, str], status: int, at: str, words: str
) -> None:
    fields = {"version": "2", "budget": "size=-10%", "class": "pi4", "minutes": "20", **changes}
    with dashboard.client() as admin:
        answer = admin.post(f"{URL}/compress", data=fields)
    page = answer.text
    assert answer.status_code == status
    assert f'data-path="{URL}"' in page
    assert re.search(rf'name="{at}"[^>]* aria-invalid="true" autofocus aria-describedby="{at}-error', page)
    message = re.search(rf'<p class="error" id="{at}-error" role="alert">(.*?)</p>', page)
    assert message is not None
    assert words in message[1]
    assert page.count("aria-invalid") == 1
    assert f'value="{fields["budget"].strip()}"' in page
    assert "<option selected>pi4</option>" in page
    if at == "budget":
        assert '<option value="2" selected>' in page
        assert '<option value="20" selected>' in page
    with read(dashboard.context.engine) as session:
        assert len(job_page(session).items) == 5


def test_a_form_for_a_model_that_is_not_there_is_a_problem(dashboard: Dashboard) -> None:
    fields = {"version": "1", "budget": "size=-10%", "minutes": "5"}
    with dashboard.client() as admin:
        assert admin.post("/models/nope/compress", data=fields).status_code == 404


def test_what_cannot_be_cancelled_is_said_on_the_models_page(dashboard: Dashboard) -> None:
    with dashboard.client() as admin:
        answer = admin.post("/compress-jobs/1/cancel")
    assert answer.status_code == 409
    assert '<p class="error" role="alert"><strong>Not in this state</strong> <span>job 1 has ended: met' in answer.text
    assert 'id="job-4"' in answer.text


def test_cancelling_from_the_page(dashboard: Dashboard) -> None:
    with dashboard.client() as admin:
        for number, state in ((5, "cancelled"), (4, "running")):
            answer = admin.post(f"/compress-jobs/{number}/cancel")
            assert (answer.status_code, answer.headers["location"]) == (303, f"{URL}#job-{number}")
            with read(dashboard.context.engine) as session:
                assert get_job(session, number).state == state
        assert "ending" in card(admin.get(URL).text, 4)
        assert admin.post("/compress-jobs/1/cancel").status_code == 409
        assert admin.post("/compress-jobs/99/cancel").status_code == 404


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_who_may_not_change_models_sees_no_form_and_is_refused(dashboard: Dashboard, role: Role) -> None:
    with dashboard.client(role) as other:
        page = other.get(URL).text
        assert "/compress" not in page
        assert '<form method="post" action="/models' not in page
        fields = {"version": "1", "budget": "size=-10%", "minutes": "5"}
        assert other.post(f"{URL}/compress", data=fields).status_code == 403
        assert other.post("/compress-jobs/4/cancel").status_code == 403


def test_another_site_cannot_start_one(dashboard: Dashboard) -> None:
    with dashboard.client() as admin:
        fields = {"version": "1", "budget": "size=-10%", "minutes": "5"}
        answer = admin.post(f"{URL}/compress", data=fields, headers={"Origin": "https://elsewhere.example"})
    assert answer.status_code == 403


def test_a_result_of_an_error_metric_is_told_in_its_unit() -> None:
    rows = [
        {"recipe": "original", "size_bytes": 10, "p50_ms": 2.0, "metric": 1.0, "offered": False, "reason": ""},
        {"recipe": "x", "size_bytes": 3, "p50_ms": 1.0, "metric": 1.02, "drop_pt": 2.0, "drop_high_pt": 4.0,
         "agreement": 0.99, "offered": True, "reason": ""},
    ]  # fmt: skip
    verdict = {"item": "error=+5%", "met": True, "value": 0.02, "low": 0.01, "high": 0.04}
    result = {"chosen": "x", "candidates": rows, "verdicts": [verdict], "comparison": [], "samples": 9, "notes": []}
    job = CompressJob(model="m", version=1, budget="error=+5%", time_s=60, state="met", result=result)
    view = job_view(job, ERROR)
    words = CompressWords(translator("en"))
    assert words.lead(view).endswith("loses at most +0.040 mm.")
    assert [said.text for said in words.verdicts(view)] == ["+2.0 %, between +1.0 % and +4.0 %"]
    assert words.rows(view)[1].drop == "+0.020 mm"
    assert view.charts is not None


def test_a_page_survives_a_budget_it_does_not_know_and_an_empty_result(dashboard: Dashboard) -> None:
    with write(dashboard.context.engine) as session:
        for number, changes in ((1, {"budget": "weight=-3kg"}), (2, {"result": {}})):
            job = get_job(session, number)
            for name, value in changes.items():
                setattr(job, name, value)
            session.add(job)
    with dashboard.client() as admin:
        assert admin.get(URL).status_code == 200


def test_a_wrong_form_is_told_in_the_readers_language(dashboard: Dashboard) -> None:
    fields = {"version": "2", "budget": "size=half", "class": "", "minutes": "20"}
    with dashboard.client() as admin:
        page = admin.post(f"{URL}/compress", data=fields, headers={"Accept-Language": "zh"}).text
    assert "<strong>无法理解输入</strong> <span>无法理解预算项 &#39;size=half&#39;；示例：size=-80%" in page
