"""What the measuring process keeps of each answer."""

from pathlib import Path

import numpy as np

from tests.support.graphs import conv_net
from wavegate_server.compress.measure.probe import _Answering, _session, _table
from wavegate_server.compress.onnx_graph.graphs import save


def test_an_answer_is_kept_once_in_the_graphs_own_type(tmp_path: Path) -> None:
    """As lists of Python numbers, and each twice, 150 pages of a text recogniser took more than 4 GiB."""
    save(conv_net(), tmp_path / "m.onnx")
    session = _session(str(tmp_path / "m.onnx"))
    entry = session.get_inputs()[0]
    rng = np.random.default_rng(1)
    feeds = [{entry.name: rng.random([1, *entry.shape[1:]], np.float32)} for _ in range(3)]
    outputs, answers = _Answering(session, []).of(feeds)
    assert all(answer is output for answer, output in zip(answers, outputs, strict=True))
    assert {output.dtype for output in outputs} == {np.dtype(np.float32)}
    assert np.array_equal(outputs[1], session.run(None, feeds[1])[0].reshape(-1))
    assert _table(outputs)[0].dtype == np.float64
