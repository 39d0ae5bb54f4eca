import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import text_format
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tritonclient.grpc import model_config_pb2

from benchmarks import compare, sweep
from benchmarks.clients import steady_rate
from benchmarks.limits import ARITHMETIC, Arithmetic, step_bytes, time_limits
from benchmarks.machine import Ceilings
from benchmarks.pictures import cut_outs
from benchmarks.serving import linked, medians
from benchmarks.work import Work, count_step_numbers, count_work
from ofa.model.vit import VIT_SIZES, ViTSize
from ofa_server.model_configs import read_configs
from tests.unit.tiny import IMAGE_SIZE, make_config, make_model

CPU = torch.device("cpu")
PROMPT_LENGTH = 9
SHAPE = (IMAGE_SIZE, PROMPT_LENGTH)
CEILINGS = Ceilings(
    matrix={"float32": 1.0, "bfloat16": 2.0, "float16": 2.0, "int8": 4.0},
    convolution={"float32": 1.0, "bfloat16": 2.0, "float16": 2.0},
    memory=1.0,
)


def count_by_torch(call: Callable[[], object]) -> int:
    # It does not know the fused attention of CPUs.
    explicit = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, explicit, torch.inference_mode():
        call()
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    "stem", [{"resnet_type": "resnet18"}, {"resnet_type": "resnet50"}, {"use_ofasys": True}]
)
def test_the_counted_work_is_what_torch_counts(
    stem: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VIT_SIZES, "vit_base", ViTSize(IMAGE_SIZE, 16, 24, 2, 2))
    config = make_config(**stem)
    encoder = make_model(config).requires_grad_(requires_grad=False).encoder
    work = count_work(config, *SHAPE, num_steps=5, beam_size=2)
    pictures = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    ids = torch.full((1, PROMPT_LENGTH), 5)
    assert count_by_torch(lambda: encoder.embed(pictures, ids)) == sum(work["stem"])
    x, height, width = encoder.embed(pictures, ids)
    bias = encoder.attention_bias(
        encoder.position_states(height, width, PROMPT_LENGTH), height, width
    )
    padding_mask = encoder.padding_mask(ids, height * width)
    counted = count_by_torch(lambda: encoder.run_layers(x, padding_mask, bias))
    assert counted == sum(work["encoder"])


def test_a_step_reads_the_weights_of_the_decoder() -> None:
    config = make_config()
    decoder = make_model(config).decoder
    matrices = sum(
        parameter.numel()
        for name, parameter in decoder.layers.named_parameters()
        # The source's keys and values are projected before the first step.
        if parameter.dim() == 2 and not any(f"cross_attn.{k}_proj" in name for k in "kv")
    )
    assert count_step_numbers(config, *SHAPE)["weights"] == matrices


def test_a_batch_shares_the_weights_and_not_the_keys() -> None:
    numbers = {"weights": 100, "vocabulary": 10, "keys, values": 1}
    wide, narrow = Arithmetic(*["float32"] * 4), Arithmetic("bfloat16", "int8", "int8", "float16")
    assert step_bytes(numbers, wide, 1) == 444
    assert step_bytes(numbers, wide, 8) == 472
    assert step_bytes(numbers, narrow, 8) == 136


def limits(precision: str, batch_size: int, num_bytes: int) -> dict[str, float]:
    work = {"stem": Work(10**9, 10**9), "decoding": Work(0, 10**9)}
    arithmetic = ARITHMETIC["cpu"][precision]
    return time_limits(work, num_bytes, 10, arithmetic, batch_size, CEILINGS, CPU)


def test_a_limit_is_the_slower_of_computing_and_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.limits.cache_bytes", lambda _: 1000)
    assert limits("float32", 1, 500) == {"stem": 2, "decoding": 1, "generator": 3}
    # Ten steps read a gigabyte each; a batch shares them.
    assert limits("float32", 1, 10**9)["decoding"] == 10
    assert limits("float32", 5, 10**9)["decoding"] == 2
    # A cache holds it: it is read once.
    monkeypatch.setattr("benchmarks.limits.cache_bytes", lambda _: 10**10)
    assert limits("float32", 1, 2 * 10**9)["decoding"] == 2


@pytest.mark.parametrize("precision", ARITHMETIC["cpu"])
def test_a_narrower_precision_has_a_lower_limit(precision: str) -> None:
    narrow, wide = limits(precision, 1, 0), limits("float32", 1, 0)
    assert all(narrow[stage] <= wide[stage] for stage in wide)


def test_cut_outs_are_always_the_same() -> None:
    pictures = cut_outs(3)
    assert pictures == cut_outs(3)
    assert len(set(pictures)) == 3


SHIPPED = sweep.Settings(2, 1, 2, 8, 5000)
ENSEMBLE = 'platform: "ensemble" ensemble_scheduling {}'
CONFIG = """
max_batch_size: 8
instance_group [ { kind: KIND_GPU count: 1 } ]
dynamic_batching { default_queue_policy { max_queue_size: 64 } }
backend: "pytorch"
"""


def test_a_sweep_changes_one_kind_of_setting_at_a_time() -> None:
    for stage in range(len(sweep._STAGES)):
        alternatives = sweep._alternatives(stage, SHIPPED, 2)
        assert alternatives
        assert SHIPPED not in alternatives
        assert len(set(alternatives)) == len(alternatives)
        for settings in alternatives:
            assert settings.generator_instances * settings.threads <= 2
    # Few enough for minutes, where a grid of the same values has a hundred.
    assert sweep._count_left(0, SHIPPED, 2) <= 10


def candidate(per_second: float, alone_ms: float) -> sweep.Candidate:
    return sweep.Candidate(SHIPPED, per_second, 100.0, alone_ms, 1.0)


def test_better_is_more_answers_without_longer_waiting() -> None:
    best = candidate(100, 20)
    assert sweep._is_better(candidate(110, 20), best, [best])
    assert not sweep._is_better(candidate(102, 20), best, [best])
    assert not sweep._is_better(candidate(110, 30), best, [best])
    # Beside the fastest so far, not beside the best.
    assert not sweep._is_better(candidate(110, 20), best, [best, candidate(50, 15)])


def test_what_a_sweep_serves_is_what_it_prints(tmp_path: Path) -> None:
    for model in ("x", "x_preprocess", "x_generator", "x_postprocess", "x_zh"):
        (tmp_path / model / "1").mkdir(parents=True)
        (tmp_path / model / "1" / "model.pt").touch()
        (tmp_path / model / "config.pbtxt").write_text(ENSEMBLE if model == "x" else CONFIG)
    settings = sweep.Settings(3, 2, 1, 16, 2000)
    with linked(tmp_path, "x") as copy:
        sweep._configure(copy, "x", settings)
        written = read_configs(copy)
        assert (copy / "x" / "1").resolve() == (tmp_path / "x" / "1").resolve()
    # Nothing of what is served elsewhere has changed.
    assert (tmp_path / "x_generator" / "config.pbtxt").read_text() == CONFIG
    # Not the ensemble that has only the beginning of its name in common.
    assert set(written) == {"x", "x_preprocess", "x_generator", "x_postprocess"}
    preprocess, generator = sweep.config_lines("x", settings).split("\n\n")
    for model, lines in (("x_preprocess", preprocess), ("x_generator", generator)):
        config = written[model]
        for line in lines.splitlines()[1:]:
            setting, _, block = line.partition("  # in ")
            if block:
                assert setting in text_format.MessageToString(config).partition(block)[2]
            else:
                field, value = text_format.Parse(
                    setting, model_config_pb2.ModelConfig()
                ).ListFields()[0]
                assert getattr(config, field.name) == value
        # What is set beside them stays.
        assert config.dynamic_batching.default_queue_policy.max_queue_size == 64
        [group] = config.instance_group
        assert group.kind == group.KIND_GPU


def test_turns_alternate_who_goes_first() -> None:
    asked = []

    def measure(name: str, seconds: float) -> Callable[[int], float]:
        return lambda turn: asked.append((turn, name)) or seconds  # type: ignore[func-returns-value]

    assert compare.take_turns(measure("old", 2), measure("new", 3), 2) == [1.5, 1.5]
    assert asked == [(0, "old"), (0, "new"), (1, "new"), (1, "old")]


@pytest.mark.parametrize(("ratio", "slower"), [(0.5, False), (1.04, False), (1.06, True)])
def test_a_commit_is_slower_beyond_the_tolerance(ratio: float, slower: bool) -> None:
    # One bad turn is no verdict.
    result = {"tolerance": 0.05, "ratios": {"generator": [ratio, ratio, 9.0]}}
    assert bool(compare.beyond(result)) is slower


def test_a_compared_environment_has_the_code_of_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "code" / "ofa").mkdir(parents=True)
    (tmp_path / "code" / "ofa" / "__init__.py").write_text("answer = 42\n")
    python = compare._make_environment(tmp_path / "code", tmp_path / "environment")
    program = "import ofa, torch, sys; sys.exit(ofa.answer)"
    assert subprocess.run([python, "-c", program], cwd=tmp_path, check=False).returncode == 42
    with pytest.raises(RuntimeError, match="another ofa"):
        compare._make_environment(tmp_path / "elsewhere", tmp_path / "environment")


def batches_of(size: int, period: float, first: float, end: float) -> list[float]:
    """When the answers of batches come that follow one another, a millisecond apart in each."""
    ends, at = list[float](), first
    while at + size / 1000 < end:
        ends += [at + row / 1000 for row in range(size)]
        at += period
    return ends


@pytest.mark.parametrize("first", [0.0, 1.9, 6.5])
def test_a_rate_does_not_depend_on_where_the_time_cuts_batches(first: float) -> None:
    ends = batches_of(8, 7.0, first, 40.0)
    assert steady_rate(ends, 40.0) == pytest.approx(8 / 7)
    # The first is seen in part only, as is one of fewer rows in the midst.
    assert steady_rate(ends[3:], 40.0) == pytest.approx(8 / 7)
    assert steady_rate(ends[:16] + ends[20:], 40.0) < 8 / 7


def test_few_batches_are_counted_in_the_whole_time() -> None:
    assert steady_rate(batches_of(8, 13.0, 1.0, 5.0), 5.0) == 8 / 5
    assert steady_rate(batches_of(8, 13.0, 1.0, 20.0), 30.0) == 16 / 30
    # Three are enough.
    assert steady_rate(batches_of(8, 13.0, 12.0, 40.0), 50.0) == pytest.approx(8 / 13)
    assert steady_rate([1.0], 2.0) == 0.5


def test_a_stall_is_no_end_of_a_batch() -> None:
    ends = [number / 100 for number in range(300)]
    stalled = [end + 0.05 * (end > 1) + 0.05 * (end > 1.01) for end in ends]
    assert steady_rate(stalled, 3.1) == pytest.approx(100, rel=0.05)
    assert steady_rate(ends, 3.0) == pytest.approx(100, rel=0.01)


def test_turns_are_summed_up_by_their_medians() -> None:
    turns = [
        {"num": each, "in": {"p50": 10 * each}, "triton": {"caption": [each]}} for each in (3, 1, 2)
    ]
    assert medians(turns) == {"num": 2, "in": {"p50": 20}, "triton": {"caption": [2]}}
