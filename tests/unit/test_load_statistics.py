from load_tests.triton_statistics import ModelStatistics, format_table, subtract

MS = 1_000_000

BEFORE = {
    "idle": ModelStatistics(num_requests=5, num_executions=5, queue=MS),
    "generator": ModelStatistics(10, 1, 10, 500 * MS, 100 * MS, 10 * MS, 380 * MS, 10 * MS),
}
AFTER = BEFORE | {
    "generator": ModelStatistics(18, 3, 12, 900 * MS, 180 * MS, 18 * MS, 684 * MS, 18 * MS),
    "caption": ModelStatistics(num_requests=8, total=480 * MS),
    "preprocess": ModelStatistics(num_failures=2),
}


def test_only_what_happened_between_two_readings_counts() -> None:
    assert subtract(AFTER, BEFORE) == {
        "generator": ModelStatistics(8, 2, 2, 400 * MS, 80 * MS, 8 * MS, 304 * MS, 8 * MS),
        "caption": ModelStatistics(num_requests=8, total=480 * MS),
        "preprocess": ModelStatistics(num_failures=2),
    }


def test_the_table_has_means_a_request() -> None:
    lines = [line.split() for line in format_table(subtract(AFTER, BEFORE)).splitlines()]
    assert lines[0] == [
        "model",
        "requests",
        "failures",
        "executions",
        "batch",
        "total",
        "queue",
        "in",
        "infer",
        "out",
    ]
    assert lines[1:] == [
        ["generator", "8", "2", "2", "4.00", "50.00", "10.00", "1.00", "38.00", "1.00"],
        ["caption", "8", "0", "0", "-", "60.00", "0.00", "0.00", "0.00", "0.00"],
        ["preprocess", "0", "2", "0", "-", "-", "-", "-", "-", "-"],
    ]


def test_a_server_that_did_nothing_gives_the_heading_only() -> None:
    assert len(format_table(subtract(BEFORE, BEFORE)).splitlines()) == 1
