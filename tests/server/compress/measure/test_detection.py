"""Boxes matched with numpy: the same answers as on a device."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wavegate_server.compress.measure.detection import detection_agreement
from wavegate_shared.metrics import Metric, score

corner = st.integers(0, 12).map(float)
box = st.tuples(corner, corner, corner, corner, st.sampled_from([0.1, 0.25, 0.5, 0.9]), st.sampled_from([0.0, 1.0]))
boxes = st.lists(box, max_size=9).map(lambda rows: [float(number) for row in rows for number in row])


@given(boxes, boxes)
def test_it_is_the_metric_of_the_device(got: list[float], wanted: list[float]) -> None:
    pure = score(Metric("detection_agreement"), got, wanted) if got else float(not wanted)
    if got:
        assert detection_agreement(np.array(got), np.array(wanted)) == pure


def test_an_answer_agrees_with_itself() -> None:
    rng = np.random.default_rng(1)
    at, size = rng.uniform(0, 500, (2000, 2)), rng.uniform(5, 9, (2000, 2))
    rows = np.hstack([at, at + size, rng.uniform(0.3, 1, (2000, 1)), rng.integers(0, 80, (2000, 1))])
    assert detection_agreement(rows.reshape(-1), rows.reshape(-1)) > 0.99
