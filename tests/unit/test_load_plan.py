import tomllib
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from load_tests.calls import CALLS
from load_tests.plan import Plan, PlanError, Request, Stage, read_plan
from ofa_client import OFAClient

PROFILES = sorted((Path(__file__).parents[2] / "load_tests" / "profiles").glob("*.toml"))

SMALL = """
arrivals = "even"
[[stages]]
seconds = 10
rate = 5
[[requests]]
task = "vqa"
text = "what?"
options = { num_answers = 2 }
p95_ms = 300
[[requests]]
task = "caption"
pictures = "bad"
weight = 0.5
[slo]
max_overload_ratio = 0.1
"""


def plan_of(text: str) -> Plan:
    return Plan.from_table(tomllib.loads(text))


def test_a_profile_says_it_all() -> None:
    plan = plan_of(SMALL)
    assert plan.is_open
    assert plan.seconds == 10
    question, bad = plan.requests
    assert (question.model, question.name, question.pictures) == ("vqa", "vqa", "given")
    assert (question.text, question.options, question.limits) == (
        "what?",
        {"num_answers": 2},
        {"p95_ms": 300},
    )
    assert (bad.name, bad.is_bad, bad.weight) == ("caption, bad pictures", True, 0.5)
    assert (plan.slo.max_error_ratio, plan.slo.max_overload_ratio) == (0, 0.1)


def test_a_plan_survives_its_way_to_the_workers() -> None:
    plan = plan_of(SMALL)
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_shipped_profiles_can_be_read(file: Path) -> None:
    assert read_plan(file).seconds > 0


def test_every_task_of_the_client_can_be_asked() -> None:
    sent = {
        "caption": "caption", "vqa": "answer", "grounding": "ground", "entailment": "entail",
        "classification": "classify", "ocr": "read_text", "summarization": "summarize",
        "text_classification": "classify_text", "generate": "generate", "text_to_image": "draw",
    }  # fmt: skip
    assert set(sent) == set(CALLS)
    for task, verb in sent.items():
        client = create_autospec(OFAClient, instance=True)
        request = Request(task=task)
        texts = (request.text, request.text2)
        CALLS[task].ask(client, b"picture", *texts, model="m")
        [(name, contents, options)] = client.method_calls
        assert name == verb
        assert options == {"model": "m"}
        assert (b"picture" in contents) == CALLS[task].takes_picture
        assert all(text in contents for text in texts if text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no [[stages]]"),
        ("stages = []", "there are no stages"),
        ("stages = [{ users = 1 }]", "stages 1: seconds is missing"),
        ("stages = [{ seconds = 0, users = 1 }]", "stages 1: a stage lasts at least 1 second"),
        ("stages = [{ seconds = 1.5, users = 1 }]", "stages 1: seconds is int, not 1.5"),
        ("stages = [{ seconds = 5, users = true }]", "stages 1: users is int, not True"),
        ("stages = [{ seconds = 5, user = 1 }]", "stages 1: 'user' is unknown; there are seconds"),
        ("stages = [{ seconds = 5 }]", "no stage has users or a rate"),
        ("stages = [{ seconds = 5, users = 1, rate = 1 }]", "users or a rate, not both"),
        (
            "stages = [{ seconds = 5, users = 1 }, { seconds = 5, rate = 1 }]",
            "either all stages have users, or all have a rate",
        ),
        ("speed = 1\nstages = [{ seconds = 5, users = 1 }]", "the profile: 'speed' is unknown"),
        (
            "arrivals = 'odd'\nstages = [{ seconds = 5, rate = 1 }]",
            "arrivals are poisson, even, not odd",
        ),
        (
            "requests = [{ task = 'sing' }]\nstages = [{ seconds = 5, users = 1 }]",
            "requests 1: there is no task 'sing'; there are caption, vqa",
        ),
        (
            "requests = [{ pictures = 'ugly' }]\nstages = [{ seconds = 5, users = 1 }]",
            "requests 1: pictures are one of given, small, large, bad, not 'ugly'",
        ),
        (
            "requests = [{ task = 'ocr', text = 1 }]\nstages = [{ seconds = 5, users = 1 }]",
            "requests 1: text is str, not 1",
        ),
        (
            """stages = [{ seconds = 5, users = 1 }]
            requests = [{ task = 'summarization', pictures = 'large' }]""",
            "summarization takes no pictures",
        ),
        (
            "requests = [{ weight = 0 }]\nstages = [{ seconds = 5, users = 1 }]",
            "requests 1: a weight is positive, not 0",
        ),
        (
            "requests = [{}, {}]\nstages = [{ seconds = 5, users = 1 }]",
            "requests need different names",
        ),
        ("slo = 1\nstages = [{ seconds = 5, users = 1 }]", "slo is a table"),
    ],
)
def test_what_makes_no_sense_is_said(text: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of(text)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name, content, message in (
        ("broken.toml", "stages = [", "broken.toml: "),
        ("missing.toml", None, "missing.toml: No such file"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(PlanError, match=message):
            read_plan(tmp_path / name)


def test_a_pause_is_a_stage_without_load() -> None:
    assert Plan([Stage(5, users=4), Stage(5), Stage(5, users=4)]).seconds == 15
