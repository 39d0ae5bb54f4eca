"""The part of the fuzzing that goes through a live server, beside requests of neighbours."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from benchmarks.serving import linked
from chaos.figures import Figure, at_most, growth, none, reported
from chaos.fuzz_findings import Findings, shows_the_inside
from chaos.fuzz_messages import fuzzed_request, fuzzed_tensors, make_request
from chaos.fuzz_pictures import fuzzed_picture
from chaos.fuzz_wire import fuzzed_frames
from chaos.processes import Usage, is_alive, tree
from chaos.sampler import Sample, Sampler
from chaos.servers import ChaosError, Server, serving
from ofa.tasks import Task, load_task
from ofa.tensors import TensorSpec

#: Between them they take every kind of tensor: a picture, one or two texts, every option.
_MODELS = ("caption", "vqa", "text_classification", "generate")
_NUM_THREADS = 6
#: After so many cases of a thread comes a neighbour.
_NEIGHBOUR_EVERY = 20
_TIMEOUT_S = 120
_WIRE_TIMEOUT_S = 2.0
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_CALLS = (
    *("ServerLive", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig"),
    *("ModelStatistics", "ModelStreamInfer", "RepositoryIndex", "RepositoryModelLoad"),
    *(
        "SystemSharedMemoryRegister",
        "CudaSharedMemoryStatus",
        "TraceSetting",
        "LogSettings",
        "None",
    ),
)
#: Statuses that say what was wrong with a request, and others that do with the words beside them:
#: of Triton's queues and its restricted calls; of gRPC where the bytes are no message, or where
#: what the answer would repeat of the request is more than a client takes; and of a generator that
#: is asked past its ensemble, where nothing is checked (Envoy does not let such requests pass).
_CLEAN = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"}
_CLEAN_WORDS = (
    ("UNAVAILABLE", "maximum queue size"),
    ("UNAVAILABLE", "Request timeout expired"),
    ("UNAVAILABLE", "This protocol is restricted"),
    ("INTERNAL", "Unable to parse request"),
    ("RESOURCE_EXHAUSTED", "received metadata size exceeds"),
    ("INTERNAL", "PyTorch execute failure"),
)
#: What growth is allowed in the second half, when buffers have met the largest pictures: 100 MB are
#: 10 kB for each case of the full run. Generators still meet new shapes then, batches by lengths,
#: and keep something of each.
_RSS_MB, _GENERATORS_MB, _SHARED_MB, _HANDLES, _THREADS = 100, 150, 16, 20, 20
#: After fewer cases memory still grows towards its size.
_SETTLED = 10_000
_SAMPLE_INTERVAL_S = 0.5


def run(repository: Path, corpus: Sequence[bytes], num_cases: int) -> list[Figure]:
    """Try that many cases on a server of its own, which has to live through all of them."""
    findings = Findings("server")
    with linked(repository, *_MODELS) as own, serving(server := Server(own, "fuzz")):
        tasks = {name: load_task(own / f"{name}_preprocess" / "1") for name in _MODELS}
        attack = _Attack(server, tasks, corpus, findings)
        processes = tree(server.process.pid)
        numbers = [range(at, num_cases, _NUM_THREADS) for at in range(_NUM_THREADS)]
        with (
            Sampler(server.process.pid, _SAMPLE_INTERVAL_S) as sampler,
            ThreadPoolExecutor(_NUM_THREADS) as threads,
        ):
            list(threads.map(attack.run, numbers))
        died = [pid for pid in processes if not is_alive(pid)]
        started = set(tree(server.process.pid)) - set(processes)
    late = sampler.samples[len(sampler.samples) // 2 :]
    shown = ", ".join(f"{code} {number:,}" for code, number in attack.codes.most_common())
    return [
        reported("live: cases", attack.num_cases, "", shown),
        none("live: processes that died or were started", len(died) + len(started)),
        none("live: unclean answers", len(findings.notes), findings.first),
        none("live: neighbours harmed", attack.num_harmed, f"of {attack.num_neighbours:,}"),
        *_growth_of_memory(late, is_settled=num_cases >= _SETTLED),
        at_most(
            "live: shared memory grows by", growth([s.shared / 1e6 for s in late]), _SHARED_MB, "MB"
        ),
        at_most("live: file handles grow by", growth([s.whole.handles for s in late]), _HANDLES),
        at_most("live: threads grow by", growth([s.whole.threads for s in late]), _THREADS),
    ]


def _growth_of_memory(late: Sequence[Sample], *, is_settled: bool) -> list[Figure]:
    """By which memory grows, without a bound as long as it has not settled."""
    generators = [sample.usage.get("generator", Usage()).rss / 1e6 for sample in late]
    others = [sample.whole.rss / 1e6 - own for sample, own in zip(late, generators, strict=True)]
    figures = []
    for what, held, limit in (
        ("live: memory grows by, without the generators", others, _RSS_MB),
        ("live: memory of the generators grows by", generators, _GENERATORS_MB),
    ):
        note = f"{held[0]:,.0f} MB halfway, {held[-1]:,.0f} MB at the end"
        by = growth(held)
        bounded = at_most(what, by, limit, "MB", note)
        figures.append(bounded if is_settled else reported(what, by, "MB", note))
    return figures


class _Attack:
    """Cases of many kinds, each told by its number, and a neighbour now and then."""

    def __init__(
        self,
        server: Server,
        tasks: dict[str, Task],
        corpus: Sequence[bytes],
        findings: Findings,
    ) -> None:
        self.codes: Counter[str] = Counter()
        self.num_cases = self.num_neighbours = self.num_harmed = 0
        self._server, self._tasks, self._corpus = server, tasks, corpus
        self._findings = findings
        self._lock = threading.Lock()
        picture = np.array([corpus[0]], np.object_)
        self._neighbour = make_request("caption", {"image": picture}).SerializeToString()
        with self._channel() as channel:
            self._expected = self._ask(channel)
        if not self._expected:
            raise ChaosError("the neighbour's picture was not answered before the first case")

    def _channel(self) -> grpc.Channel:
        unbounded = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        return grpc.insecure_channel(self._server.address, unbounded)

    def run(self, numbers: Sequence[int]) -> None:
        """Try some cases one after the other."""
        with self._channel() as channel:
            for number in numbers:
                self._try(channel, number)
                if number // _NUM_THREADS % _NEIGHBOUR_EVERY == 0:
                    self._ask_as_a_neighbour(channel)

    def _ask_as_a_neighbour(self, channel: grpc.Channel) -> None:
        answer = self._ask(channel)
        with self._lock:
            self.num_neighbours += 1
            self.num_harmed += answer != self._expected

    def _ask(self, channel: grpc.Channel) -> dict[str, bytes]:
        """The neighbour's tensors, bit for bit; they come in any order. Empty for an error."""
        answer = service_pb2.ModelInferResponse.FromString(
            _call(channel, _INFER, self._neighbour)[2]
        )
        names = [output.name for output in answer.outputs]
        return dict(zip(names, answer.raw_output_contents, strict=True))

    def _try(self, channel: grpc.Channel, number: int) -> None:
        random = Random(f"server {number}")  # noqa: S311 - so that it can be made again
        kind = random.choices(
            ("picture", "contents", "message", "member", "call", "wire"), (50, 15, 20, 4, 3, 8)
        )[0]
        if kind == "wire":
            frames = fuzzed_frames(random, self._neighbour)
            _send(self._server.grpc_port, frames)
            self._count("no call")
            return
        method, message = self._make_call(random, kind)
        code, details, _ = _call(channel, method, message)
        self._count(code)
        if fault := _fault(code, details):
            with self._lock:
                self._findings.add(number, f"{kind}: {fault}: {code} {details}", message)

    def _make_call(self, random: Random, kind: str) -> tuple[str, bytes]:
        model = random.choice(_MODELS)
        specs = self._tasks[model].tensors.request
        match kind:
            case "picture":
                picture = np.array([fuzzed_picture(random, self._corpus)], np.object_)
                request = make_request("caption", {"image": picture})
                return _INFER, request.SerializeToString()
            case "contents":
                tensors = fuzzed_tensors(random, specs, self._corpus)
                return _INFER, make_request(model, tensors).SerializeToString()
            case "message":
                return _INFER, fuzzed_request(random, model, specs, self._corpus)
            case "member":
                return _INFER, self._for_a_member(random)
            case _:
                method = f"/inference.GRPCInferenceService/{random.choice(_CALLS)}"
                names = service_pb2.ModelMetadataRequest(
                    name=model, version="1"
                ).SerializeToString()
                return method, random.choice((names, b"", random.randbytes(20), names[:-1]))

    def _for_a_member(self, random: Random) -> bytes:
        """A request past the ensemble; not of `caption`, whose neighbours it would harm."""
        model = random.choice(_MODELS[1:])
        tensors = self._tasks[model].tensors
        member, specs = random.choice(
            (
                ("preprocess", tensors.request),
                ("generator", tensors.generator_inputs),
                ("postprocess", (*tensors.generator_outputs, *tensors.kept)),
            )
        )
        plain = [
            TensorSpec(each.name, each.dtype, (1,)) for each in specs if each.dtype != np.uint8
        ]
        return fuzzed_request(random, f"{model}_{member}", plain, self._corpus)

    def _count(self, code: str) -> None:
        with self._lock:
            self.num_cases += 1
            self.codes[code] += 1


def _call(channel: grpc.Channel, method: str, message: bytes) -> tuple[str, str, bytes]:
    """Status, words and answer of a call."""
    try:
        answer = channel.unary_unary(method)(message, timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        return error.code().name, error.details(), b""
    return "OK", "", answer


def _fault(code: str, details: str) -> str:
    """What is wrong with an answer; empty if nothing is."""
    if shows_the_inside(details):
        return "the message shows the inside"
    if code in _CLEAN or any(code == each and words in details for each, words in _CLEAN_WORDS):
        return ""
    return "an unclean status"


def _send(port: int, frames: bytes) -> None:
    """Send bytes to a port, and read what comes until the other side hangs up or keeps silent."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), _WIRE_TIMEOUT_S) as wire:
        wire.sendall(frames)
        wire.shutdown(socket.SHUT_WR)
        while wire.recv(65_536):
            pass
