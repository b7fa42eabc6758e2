"""The queue between network and writer: bounded, and closed without losing its head."""

import threading

from wavegate_server.services.ingest.inbox import BATCH_MESSAGES, Inbox, Message


def message(size: int = 1) -> Message:
    return Message("dev-1", b"x" * size, lambda: None)


def test_what_is_put_is_taken_in_order() -> None:
    inbox = Inbox(10, 1000)
    first, second = message(1), message(2)
    assert inbox.put(first)
    assert inbox.put(second)
    assert inbox.take(1.0) == [first, second]
    assert inbox.take(0.0) == []


def test_a_batch_has_a_bound() -> None:
    inbox = Inbox(BATCH_MESSAGES * 2, 1 << 20)
    for _ in range(BATCH_MESSAGES + 5):
        inbox.put(message())
    assert len(inbox.take(1.0)) == BATCH_MESSAGES
    assert len(inbox.take(1.0)) == 5


def blocked_put(inbox: Inbox) -> tuple[threading.Thread, list[bool]]:
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(inbox.put(message())))
    thread.start()
    return thread, answers


def test_put_waits_while_messages_or_bytes_are_over_their_bound() -> None:
    for inbox, size in ((Inbox(2, 1000), 1), (Inbox(100, 10), 5)):
        inbox.put(message(size))
        inbox.put(message(size))
        thread, answers = blocked_put(inbox)
        thread.join(0.05)
        assert thread.is_alive()
        assert len(inbox) == 2
        assert len(inbox.take(1.0)) == 2
        thread.join(5)
        assert answers == [True]


def test_closing_lets_a_waiting_put_go_and_refuses_the_rest() -> None:
    inbox = Inbox(1, 1000)
    inbox.put(message())
    thread, answers = blocked_put(inbox)
    inbox.close()
    thread.join(5)
    assert answers == [False]
    assert not inbox.put(message())
