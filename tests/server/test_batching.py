"""Dynamic batching is real: fewer executions than requests, and no answer depends on it."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import tritonclient.grpc as grpcclient

from tests.server.processes import ServeProcess
from tests.server.requests import Answer, caption, encoded, picture

NUM_CLIENTS = 16
REQUESTS_EACH = 3


def options_of(number: int) -> dict[str, float]:
    """Different options for different clients; every width, length and rule occurs."""
    beam_size = 1 + number % 5
    return {
        "beam_size": beam_size,
        "num_captions": 1 + number % beam_size,
        "max_length": 4 + number % 9,
        "min_length": number % 4,
        "no_repeat_ngram_size": number % 4,
        "length_penalty": 0.5 + number % 3,
        "temperature": 0.8 + 0.1 * (number % 5),
    }


def generator_counts(client: grpcclient.InferenceServerClient) -> tuple[int, int, Counter[int]]:
    """Inferences, executions, and executions by batch size so far."""
    statistics = client.get_inference_statistics("caption_generator").model_stats[0]
    sizes = {batch.batch_size: batch.compute_infer.count for batch in statistics.batch_stats}
    return statistics.inference_count, statistics.execution_count, Counter(sizes)


def test_clients_with_different_options_share_batches(
    server: ServeProcess, client: grpcclient.InferenceServerClient
) -> None:
    images = [encoded(picture(number)) for number in range(NUM_CLIENTS)]
    alone = [caption(client, images[n], **options_of(n)) for n in range(NUM_CLIENTS)]
    inferences, executions, sizes = generator_counts(client)
    start = Barrier(NUM_CLIENTS)

    def run_client(number: int) -> list[Answer]:
        with grpcclient.InferenceServerClient(server.grpc_address) as own:
            start.wait()
            return [
                caption(own, images[number], **options_of(number)) for _ in range(REQUESTS_EACH)
            ]

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        answers = list(pool.map(run_client, range(NUM_CLIENTS)))

    inferences_after, executions_after, sizes_after = generator_counts(client)
    assert inferences_after - inferences == NUM_CLIENTS * REQUESTS_EACH
    assert executions_after - executions < inferences_after - inferences
    assert max(sizes_after - sizes) >= 4
    for single, batched in zip(alone, answers, strict=True):
        for answer in batched:
            assert answer.captions == single.captions
            np.testing.assert_allclose(answer.scores, single.scores, rtol=0, atol=1e-4)
            np.testing.assert_allclose(
                answer.token_log_probs, single.token_log_probs, rtol=0, atol=1e-4
            )
