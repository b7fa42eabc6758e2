"""One worker: carries out the agent's calls and serves requests when it is told to.

Threads: the main one runs the loop (requests and calls) from the first moment, so that it notices at once when the agent is
gone, also in the middle of a load; one thread does the long jobs (load, golden set, timed runs); the pool answers requests.
The process never tears a session down: it exits, which gives all memory back and stalls nobody.
"""

import contextlib
import logging
import os
import queue
import resource
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from wavegate_agent.adapters.channel import Channel, Packet
from wavegate_agent.adapters.device import priority
from wavegate_agent.adapters.device.process_memory import process_memory
from wavegate_agent.adapters.serving.connections import Connection
from wavegate_agent.adapters.serving.handover import Giver, Taker
from wavegate_agent.adapters.serving.http_listener import HttpListener
from wavegate_agent.adapters.serving.inbox import send_connection
from wavegate_agent.adapters.serving.inference_api import InferenceApi, model_of
from wavegate_agent.adapters.serving.live_counts import LiveCounts
from wavegate_agent.adapters.serving.pipeline import LoadedVersion, load_version
from wavegate_agent.core.http1 import RequestHead
from wavegate_agent.core.worker_messages import (
    ASK_ONLY,
    BenchRun,
    BenchSample,
    Call,
    Collect,
    Done,
    Failed,
    Golden,
    HandOver,
    Load,
    OwnRequest,
    Promote,
    Reply,
    Routes,
    Serve,
    ServedModel,
    Stats,
    decode_call,
    encode,
)
from wavegate_shared.errors import DeviceError, WavegateError

__all__ = ["Worker"]

_STOP_S = 10.0
_UNTHROTTLED_REST = 3.0
"""Pause between golden samples, in run times, where the scheduler does not hold a candidate back."""

_log = logging.getLogger(__name__)


class Worker:
    """One version's process.

    Args:
        channel: to the agent.
        held_back: the priority in force (`priority.SCHED_IDLE` or `priority.NONE`).
    """

    def __init__(self, channel: Channel, *, held_back: str) -> None:
        self._channel = channel
        self._held_back = held_back
        self._listener = HttpListener()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._load: Load | None = None
        self._version: LoadedVersion | None = None
        self._counts: LiveCounts | None = None
        self._api: InferenceApi | None = None
        self._giver: Giver | None = None
        self._taker: Taker | None = None
        self._stop_by: float | None = None
        self._stop_call = 0
        self._agent_gone = False
        self._served: list[ServedModel] = []
        self._inboxes: dict[str, socket.socket] = {}

    def run(self) -> NoReturn:
        """Serve until the agent says stop or is gone; does not return."""
        threading.Thread(target=self._run_jobs, name="jobs", daemon=True).start()
        self._listener.on_boundary = self._give_at_boundary
        self._listener.on_closed = self._report_left
        self._listener.on_first_read = self._claim
        self._listener.here = self._answers
        self._listener.on_elsewhere = self._send_on
        self._listener.watch(self._channel, self._on_agent)
        while True:
            self._listener.run_once(0.05 if self._stop_by is not None else 1.0)
            if self._stop_by is not None:
                self._finish()

    # --- calls --------------------------------------------------------------------------------------------------------

    def _on_agent(self) -> None:
        while not self._agent_gone:
            packet = self._channel.receive()
            if packet is None:
                return
            if packet.end:
                self._agent_gone = True
                self._listener.unwatch(self._channel)
                self._begin_stop(0)
                return
            try:
                self._carry_out(decode_call(packet.data), packet)
            finally:
                packet.close()

    def _carry_out(self, call: Call, packet: Packet) -> None:
        if isinstance(call, Load):
            self._load = call
            self._jobs.put(partial(self._answered, call.call, partial(self._do_load, call)))
        elif isinstance(call, Golden):
            self._jobs.put(partial(self._answered, call.call, partial(self._do_golden, call)))
        elif isinstance(call, BenchRun):
            self._jobs.put(partial(self._answered, call.call, partial(self._do_bench, call)))
        elif isinstance(call, OwnRequest):
            file = packet.descriptors.pop()
            self._jobs.put(partial(self._answered, call.call, partial(self._do_own_request, call, file)))
        elif isinstance(call, Promote):
            self._reply(self._promoted(call))
        elif isinstance(call, Routes):
            self._set_routes(call, packet)
        elif isinstance(call, Serve):
            self._serve(call, packet)
        elif isinstance(call, HandOver):
            self._hand_over(call, packet)
        elif isinstance(call, Collect):
            self._reply(Stats(call=call.call, versions=self._counts.take() if self._counts else []))
        else:
            self._begin_stop(call.call)

    def _reply(self, reply: Reply) -> None:
        with contextlib.suppress(OSError):  # the loop sees the end of the channel by itself
            self._channel.send(encode(reply))

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _run_jobs(self) -> None:
        while True:
            self._jobs.get()()

    def _answered(self, call: int, job: Callable[[], Reply]) -> None:
        try:
            reply = job()
        except WavegateError as error:
            reply = Failed(call=call, code=error.code, detail=error.detail)
        except MemoryError:
            reply = Failed(call=call, code="memory_short", detail="out of memory")
        self._reply(reply)

    def _do_load(self, load: Load) -> Reply:
        self._listener.start_pool(load.concurrency)  # before the limit, which counts stacks too
        _set_limits(load)
        version = load_version(Path(load.directory), intra_threads=load.intra_threads, check_digests=load.check_digests)
        self._counts = LiveCounts(version.manifest.model, version.manifest.version)
        self._api = InferenceApi(version, self._counts, lambda: self._served)
        self._version = version
        return Done(call=load.call, text=self._held_back)

    def _do_golden(self, call: Golden) -> Reply:
        rest = 0.0 if self._held_back == priority.SCHED_IDLE else _UNTHROTTLED_REST
        return Done(call=call.call, golden=self._loaded().golden(rest=rest))

    def _do_bench(self, call: BenchRun) -> Reply:
        if self._listener.in_flight and not call.force:
            return Done(call=call.call, bench=BenchSample(ran=False, arrivals=self._listener.arrivals))
        if call.sample == ASK_ONLY:
            return Done(call=call.call, bench=BenchSample(ran=True, arrivals=self._listener.arrivals))
        version = self._loaded()
        single = self._load is None or self._load.intra_threads == 1
        clock = time.thread_time if single else time.process_time
        arrivals = self._listener.arrivals
        wall, cpu = time.perf_counter(), clock()
        version.run_sample(call.sample)
        cpu, wall = clock() - cpu, time.perf_counter() - wall
        disturbed = self._listener.arrivals != arrivals
        return Done(
            call=call.call, bench=BenchSample(ran=True, wall_ms=wall * 1e3, cpu_ms=cpu * 1e3, disturbed=disturbed)
        )

    def _do_own_request(self, call: OwnRequest, file: int) -> Reply:
        with open(file, "wb") as body:
            if self._api is None:
                raise DeviceError("load_failed", "nothing is loaded")
            token, header = self._api.own.write(self._loaded().golden_inputs(call.sample), body)
        return Done(call=call.call, text=token, left=header)

    def _loaded(self) -> LoadedVersion:
        if self._version is None:
            raise DeviceError("load_failed", "nothing is loaded")
        return self._version

    # --- other models of this device ----------------------------------------------------------------------------------

    def _set_routes(self, call: Routes, packet: Packet) -> None:
        inboxes = [socket.socket(fileno=descriptor) for descriptor in packet.descriptors]
        packet.descriptors.clear()
        for inbox in self._inboxes.values():
            inbox.close()
        self._inboxes = {model.name: inbox for model, inbox in zip(call.models, inboxes, strict=True)}
        self._served = call.models
        self._reply(Done(call=call.call))

    def _answers(self, head: RequestHead) -> bool:
        """Whether a request is for this worker: for its own model, for the device, or for a model nobody serves."""
        model = model_of(head)
        own = self._version.manifest.model if self._version is not None else ""
        return model is None or model == own or model not in self._inboxes

    def _send_on(self, connection: Connection) -> bool:
        model = model_of(connection.head) if connection.head is not None else None
        try:
            send_connection(self._inboxes[model or ""], connection.sock, bytes(connection.head_bytes))
        except OSError as error:
            _log.warning("connection_not_sent model=%s error=%s", model, error)
            return False
        return True

    # --- serving ------------------------------------------------------------------------------------------------------

    def _promoted(self, call: Promote) -> Reply:
        back = priority.promote()
        _lift_limits()
        if back:
            return Failed(call=call.call, code="swap_failed", detail=f"{len(back)} threads stay at candidate priority")
        self._held_back = priority.NONE
        return Done(call=call.call)

    def _serve(self, call: Serve, packet: Packet) -> None:
        api = self._api
        if api is None or self._load is None or self._counts is None:
            self._reply(Failed(call=call.call, code="load_failed", detail="nothing is loaded"))
            return
        sockets = [socket.socket(fileno=descriptor) for descriptor in packet.descriptors]
        packet.descriptors.clear()
        peer = sockets.pop() if call.peer else None
        self._counts.start()
        self._listener.answer_with(api)
        if peer is not None:
            self._take_over(Channel(peer), api)
        self._listener.drop_listeners()
        self._listener.listen(sockets)
        self._reply(Done(call=call.call))

    def _take_over(self, channel: Channel, api: InferenceApi) -> None:
        def on_connections(items: list[tuple[socket.socket, int, bytes]]) -> None:
            for sock, number, head in items:
                self._listener.adopt(sock, head, number)

        def on_settled() -> None:
            api.settling = False
            self._listener.release_held()

        if self._taker is not None:
            self._listener.unwatch(self._taker.channel)
            self._taker.close()
        api.settling = True
        self._taker = taker = Taker(
            channel,
            on_connections=on_connections,
            on_ring=api.remember_older,
            on_prediction=api.remember,
            on_settled=on_settled,
        )

        def on_readable() -> None:
            taker.on_readable()
            if taker.ended:
                self._listener.unwatch(taker.channel)

        api.on_unknown = on_readable
        self._listener.watch(channel, on_readable)

    def _claim(self, connection: Connection) -> None:
        if self._taker is not None and connection.unclaimed is not None:
            self._taker.claim(connection.unclaimed)

    # --- handing over -------------------------------------------------------------------------------------------------

    def _hand_over(self, call: HandOver, packet: Packet) -> None:
        channel = Channel.from_descriptor(packet.descriptors.pop())
        api = self._api
        if api is None:
            channel.close()
            self._reply(Failed(call=call.call, code="swap_failed", detail="nothing is loaded"))
            return
        answered = False

        def on_complete(left: int) -> None:
            nonlocal answered
            if not answered:
                answered = True
                self._listener.drop_listeners()
                self._reply(Done(call=call.call, left=left))

        def on_lost(back: list[Connection]) -> None:
            self._giver = None
            self._listener.take_back(back)
            if not answered:
                self._listener.listen()
                self._reply(Failed(call=call.call, code="swap_failed", detail="the candidate is gone; serving again"))

        self._listener.pause_listening()
        giver = Giver(channel, on_complete=on_complete, on_lost=on_lost)
        self._giver = giver
        api.on_prediction = giver.give_prediction
        self._listener.watch(channel, lambda: self._on_taker(giver))
        giver.give_ring(api.predictions())
        giver.give(self._listener.release_idle(), self._listener.unfinished)
        self._unwatch_ended(giver)

    def _on_taker(self, giver: Giver) -> None:
        giver.on_readable()
        self._unwatch_ended(giver)

    def _unwatch_ended(self, giver: Giver) -> None:
        if giver.ended:
            self._listener.unwatch(giver.channel)
            if self._giver is giver:
                self._giver = None

    def _give_at_boundary(self, connection: Connection) -> bool:
        if self._giver is None:
            return False
        self._giver.give([connection], self._listener.unfinished)
        if self._giver is not None:
            self._unwatch_ended(self._giver)
        return True

    def _report_left(self) -> None:
        """A connection that ended by itself is one less to give."""
        if self._giver is not None:
            self._giver.give([], self._listener.unfinished)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _begin_stop(self, call: int) -> None:
        self._stop_call = call
        if self._stop_by is None:
            self._stop_by = time.monotonic() + _STOP_S
            self._listener.drop_listeners()

    def _finish(self) -> None:
        if self._giver is None:
            self._listener.close_idle()
        if self._listener.unfinished and time.monotonic() < (self._stop_by or 0):
            return
        if self._counts is not None:
            self._reply(Stats(call=0, versions=self._counts.take()))
        self._reply(Done(call=self._stop_call))
        os._exit(0)


def _set_limits(load: Load) -> None:
    """Limits of a candidate, counted from what the libraries took already."""
    if load.memory_limit_mb is not None:
        base = process_memory().data_mb or 0.0
        limit = int((base + load.memory_limit_mb) * (1 << 20))
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    if load.cpu_limit_s is not None:
        used = int(time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used + load.cpu_limit_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _lift_limits() -> None:
    """A live worker has no CPU limit; the memory limit stays with it."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
