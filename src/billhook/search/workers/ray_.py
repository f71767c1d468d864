"""`RayWorkers`: candidates are evaluated by actors on a Ray cluster."""

from __future__ import annotations

import copy
import logging
import socket
import subprocess
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray.exceptions import RayActorError, RayError

from billhook.errors import BillhookError, InputError
from billhook.search.workers.attempt import Deaths, as_error, attempt
from billhook.search.workers.process import uses_cuda

if TYPE_CHECKING:
    from billhook.search.objective import Objective
    from billhook.search.space import Genes
    from billhook.search.workers import Outcome

_PROBE = "import sys, ray; ray.init(sys.argv[1], logging_level=50, log_to_driver=False); ray.shutdown()"
_ROOM = 120.0  # seconds within which the first actor must have begun: machines may be busy, or start up


class RayWorkers:
    """Actors on a Ray cluster; see `Workers`. Each has one CPU, and some of a GPU if this process uses CUDA.

    billhook has to be installed on every machine of the cluster. The objective is sent once to each machine.
    A process that is connected to a cluster already stays with that one.

    Args:
        size: How many actors.
        address: "local" starts a cluster on this machine, which ends with the `with` block; "auto" finds the
            one that runs here; "HOST:PORT" is that of a cluster which this machine belongs to.
        timeout: Seconds within which the cluster must answer.
    """

    def __init__(self, size: int, address: str, timeout: float = 20.0) -> None:
        self.size = size
        self._address, self._timeout = address, timeout
        self._objective: Objective | None = None
        self._box: list[Any] = []  # a reference to the objective; as a list, so that Ray does not unpack it
        self._waiting: deque[tuple[int, Genes]] = deque()
        self._starting: dict[Any, Any] = {}  # what an actor answers when it has begun -> actor
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, int, Genes]] = {}  # answer to come -> actor, number, genes
        self._deaths = Deaths()
        self._alive_at = 0.0
        self._connected = False
        self._gpus = 0.0

    def use(self, objective: Objective) -> None:
        """Judge by `objective` from now on."""
        if objective is self._objective:
            return
        if self._waiting or self._busy:
            raise RuntimeError("another objective, while candidates are on their way")
        self._objective, self._box = objective, [ray.put(objective)]

    def submit(self, number: int, genes: Genes) -> None:
        """Hand in a candidate; it begins as soon as an actor is free."""
        self._waiting.append((number, genes))
        self._feed()

    def wait(self, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Return what was found since the last call, as soon as there is something.

        Raises:
            BillhookError: if the cluster has no room for a single actor.
        """
        end = None if timeout is None else time.monotonic() + timeout
        found: list[tuple[int, Outcome]] = []
        while not found and (self._busy or self._waiting):
            left = _ROOM if end is None else max(0.0, end - time.monotonic())
            answers = [*self._busy, *self._starting]
            ready, _ = ray.wait(answers, num_returns=1, timeout=left)
            if ready:
                more, _ = ray.wait(answers, num_returns=len(answers), timeout=0)
                for answer in more:
                    found += self._begun(answer) if answer in self._starting else self._take(answer)
                self._feed()
            elif not self._busy and not self._idle and time.monotonic() - self._alive_at > _ROOM:
                raise BillhookError(
                    f"the Ray cluster at {self._address!r} has found no room for a worker within {_ROOM:g} "
                    "s; look at `ray status`"
                )
            elif end is not None and time.monotonic() >= end:
                break
        return found

    def __enter__(self) -> RayWorkers:
        if not ray.is_initialized():
            _connect(self._address, self.size, self._timeout)
            self._connected = True
        try:
            self._check_room()
            self._alive_at = time.monotonic()
            for _ in range(self.size):
                self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._waiting.clear()
        for actor in [*self._starting.values(), *self._idle, *(actor for actor, _, _ in self._busy.values())]:
            ray.kill(actor)
        self._starting, self._idle, self._busy, self._box = {}, [], {}, []
        if self._connected:
            ray.shutdown()
            self._connected = False

    def _check_room(self) -> None:
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus = there.get("CPU", 0)
        if cpus < self.size:
            raise InputError(
                f"the Ray cluster at {self._address!r} has {cpus:g} CPUs, too few for {self.size} workers"
            )
        if uses_cuda():
            self._gpus = min(1.0, there.get("GPU", 0) / self.size)

    def _start(self) -> None:
        actor = _Actor.options(num_gpus=self._gpus).remote()
        self._starting[actor.begin.remote()] = actor

    def _begun(self, answer: Any) -> list[tuple[int, Outcome]]:
        """Count an actor as idle once it has begun, or start another one."""
        actor = self._starting.pop(answer)
        try:
            ray.get(answer)
        except RayActorError as error:
            # Nothing was given to it; that it cannot begin at all shows in the candidate that waits longest.
            self._start()
            if not self._waiting:
                return []
            number = self._waiting[0][0]
            failure = self._deaths.count(number, _cause(error))
            if failure is None:
                return []
            self._waiting.popleft()
            return [(number, failure)]
        self._alive_at = time.monotonic()
        self._idle.append(actor)
        return []

    def _take(self, answer: Any) -> list[tuple[int, Outcome]]:
        """Return an actor's answer; if it died, none, unless that has happened too often."""
        actor, number, genes = self._busy.pop(answer)
        try:
            outcome: Outcome = ray.get(answer)
        except RayActorError as error:
            ray.kill(actor)  # it may only be out of reach
            self._start()
            failure = self._deaths.count(number, _cause(error))
            if failure is None:
                self._waiting.appendleft((number, genes))
                return []
            outcome = failure
        except RayError as error:  # what the actor could not do with the objective or the answer
            self._idle.append(actor)
            outcome = as_error(number, getattr(error, "cause", None) or error)
        else:
            self._idle.append(actor)
        self._alive_at = time.monotonic()
        self._deaths.forget(number)
        return [(number, outcome)]

    def _feed(self) -> None:
        while self._waiting and self._idle:
            assert self._box, "use() comes before submit()"
            actor, (number, genes) = self._idle.pop(), self._waiting.popleft()
            self._busy[actor.evaluate.remote(self._box, number, genes)] = actor, number, genes


class _Judge:
    """An actor that evaluates candidates; it keeps the objective until there is another one."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._key = ""
        self._objective: Any = None

    def begin(self) -> None:
        """Answer that the actor is there."""

    def evaluate(self, box: list[Any], number: int, genes: Genes) -> Outcome:
        """Return what a candidate is worth by the objective that `box` refers to."""
        if box[0].hex() != self._key:
            # Ray shares arrays between processes and lets nobody write.
            self._objective = copy.deepcopy(ray.get(box[0]))
            self._key = box[0].hex()
        return attempt(self._objective, number, genes)


_Actor: Any = ray.remote(num_cpus=1, max_restarts=0)(_Judge)


def _connect(address: str, size: int, timeout: float) -> None:
    """Connect to a cluster, or start one.

    Raises:
        InputError: if nobody answers at the address.
    """
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        options |= {"num_cpus": size, "include_dashboard": False}
    else:
        _check_address(address)
        _try_out(address, timeout)
    try:
        ray.init(address, **options)
    except Exception as error:  # Ray raises all sorts
        raise _no_cluster(address, str(error).strip().splitlines()[-1][:300]) from error


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise InputError(
            f"the Ray address {address!r} is one for Ray's client, which billhook does not use: search on a "
            "machine of the cluster, with 'auto' or HOST:PORT"
        )
    if address != "auto" and not (host and port.isdecimal() and int(port) < 2**16):
        raise InputError(f"the Ray address {address!r} is none: give 'local', 'auto' or HOST:PORT")


def _try_out(address: str, timeout: float) -> None:
    """Raise if a cluster does not answer. Ray would try for minutes and end the process: not in this one."""
    host, _, port = address.rpartition(":")
    command = [sys.executable, "-c", _PROBE, address]
    try:
        if host:
            socket.create_connection((host, int(port)), timeout=timeout).close()
        probe = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise _no_cluster(address, f"not within {timeout:g} s{_last_words(error.stderr)}") from None
    except OSError as error:
        raise _no_cluster(address, str(error)) from None
    if probe.returncode:
        raise _no_cluster(address, f"its client ended{_last_words(probe.stderr)}")


def _no_cluster(address: str, what: str) -> InputError:
    advice = "check the address, that the cluster runs (`ray status` there) and that no firewall is between"
    if "Auth" in what:
        advice = (
            "it wants its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file with the token"
        )
    return InputError(f"no Ray cluster answers at {address!r} ({what}): {advice}")


def _last_words(said: bytes | None) -> str:
    lines = (said or b"").decode(errors="replace").strip().splitlines()
    return f"; Ray says: {lines[-1].strip()[:300]}" if lines else ""


def _cause(error: RayActorError) -> str:
    """Return the line of Ray's long account that says how an actor ended."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "Worker exit type" in line or "Error:" in line), lines[0])
    return f"with: {told[:200]}"
