"""The data process: `python -m wavegate_agent.worker DESCRIPTOR NICE`, started by the agent, never by hand.

Its first act, before the imports that cost time, is to step back behind live traffic when it is a candidate. Everything
else is in `adapters/serving/loop.py`.
"""

import faulthandler
import os
import signal
import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run a worker on an inherited channel; does not return.

    Args:
        arguments: the channel's descriptor, and the nice value of a candidate (0: this one is live from the start).
    """
    descriptor, nice = (int(text) for text in (arguments if arguments is not None else sys.argv[1:]))
    from wavegate_agent.adapters.device import priority

    held_back = priority.demote(nice) if nice else priority.NONE
    # the agent decides when a worker ends; a Ctrl-C or a service stop reaches the agent too
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable(all_threads=False)
    sys.setswitchinterval(0.001)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from wavegate_agent.adapters.channel import Channel
    from wavegate_agent.adapters.serving.loop import Worker

    Worker(Channel.from_descriptor(descriptor), held_back=held_back).run()


if __name__ == "__main__":
    main()
