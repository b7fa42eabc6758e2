"""Memory from /proc."""

from wavegate_agent.adapters.device.process_memory import Memory, available_mb, process_memory


def test_this_process_has_memory() -> None:
    memory = process_memory()
    assert memory.rss_mb is not None
    assert memory.anon_mb is not None
    assert 1 < memory.anon_mb < memory.rss_mb


def test_a_process_that_is_gone_has_none() -> None:
    assert process_memory(2**22 + 1) == Memory(None, None, None)


def test_some_memory_is_available() -> None:
    assert (available_mb() or 0) > 1
