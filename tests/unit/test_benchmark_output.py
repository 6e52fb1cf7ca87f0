"""What benchmark_model prints: recorded outputs of five versions, and broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.devices.benchmark_output import read_output

RECORDED = Path(__file__).resolve().parents[1] / "assets" / "benchmark_model"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def test_a_run_of_tensorflow_lite() -> None:
    """The mean of the timed runs, not of the warm-up; the first run of the process."""
    run = read_output(recorded("tflite-2.8-riscv64-profiled.txt"))
    assert (run.n_runs, run.first_us, run.average_us) == (50, 3512391.0, 2.95034e6)


@pytest.mark.parametrize(
    ("name", "first_us", "average_us"),
    [("2.4.0", 249042.0, 249684.0), ("05bef3f", 207897.0, 220000.0)],
)
def test_a_run_on_a_phone_without_a_line_of_the_warm_up(
    name: str, first_us: float, average_us: float
) -> None:
    run = read_output(recorded(f"tflite-{name}-android-arm64.txt"))
    assert (run.n_runs, run.first_us, run.average_us) == (50, first_us, average_us)
    assert run.operators == ()


def test_a_run_of_a_released_litert_binary_in_the_log_of_a_phone() -> None:
    """The block of results below the lines that are read says the same: 6.68 ms, 2.92 ms, 343."""
    run = read_output(recorded("litert-2.2.0-android-arm64.txt"))
    assert (run.n_runs, run.first_us, run.average_us) == (343, 6678.0, 2918.08)
    assert run.operators == ()


def test_a_run_that_fails_on_a_phone() -> None:
    with pytest.raises(ValueError, match=r"^Benchmarking failed\.$"):
        read_output(recorded("tflite-2.4.0-android-arm64-fails.txt"))


def test_the_profile_of_tensorflow_lite() -> None:
    """Its own summary says 31 operators; they take the time of the whole."""
    run = read_output(recorded("tflite-2.8-riscv64-profiled.txt"))
    assert len(run.operators) == 31
    total_ms = sum(one.average_ms * one.n_calls for one in run.operators)
    assert total_ms == pytest.approx(run.average_us / 1000, rel=1e-3)
    convolutions = [one for one in run.operators if one.kind == "CONV_2D"]
    assert len(convolutions) == 15
    assert sum(one.average_ms for one in convolutions) == pytest.approx(2651.853, abs=0.02)
    last = run.operators[-1]
    assert last.kind == "SOFTMAX" and last.name == "[MobilenetV1/Predictions/Reshape_1]:30"
    assert not any(one.is_delegated for one in run.operators), "this build has no XNNPACK"


def test_the_profile_of_litert() -> None:
    """No line `Inference timings`, no column `[start]`, names with spaces, brackets and commas."""
    run = read_output(recorded("litert-2.0.3-2.1.0-android-arm64-profiled.txt"))
    assert (run.n_runs, run.first_us, run.average_us) == (2112, 1033.0, 464.545)
    assert [one.kind for one in run.operators] == [
        "LiteRT::Run[buffer registration]",
        "AllocateTensors",
        "Static Reshape (NC)",
        "Fully Connected (NC, PF32) GEMM",
        "LiteRT::Run[Buffer sync]",
    ]
    assert all(one.is_delegated for one in run.operators)
    assert run.operators[3].average_ms == 0.382 and run.operators[1].n_calls == 0


def test_lines_of_a_windows_terminal_and_of_a_log_are_read() -> None:
    text = recorded("tflite-2.8-riscv64-profiled.txt")
    plain = read_output(text)
    assert read_output(text.replace("\n", "\r\n")) == plain
    assert read_output("".join(f"I tflite  : {line}\n" for line in text.splitlines())) == plain


def test_operators_outside_of_a_delegate_are_told_apart() -> None:
    """An int8 network whose hard-swish has no kernel in XNNPACK."""
    row = "\t{}\t 0.2\t 0.2\t 1%\t 1%\t 0.000\t 1\t{}\n"
    text = (
        "count=1 curr=5\ncount=50 first=5 curr=4 min=4 max=5 avg=4.5 std=0\n"
        "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
        "===== Run Order =====\n"
        + "\t[node type]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]\n"
        + row.format("Convolution (NHWC, QC8) IGEMM", "Delegate/Convolution (NHWC, QC8) IGEMM:0")
        + row.format("HARD_SWISH", "[hs]:3")
    )
    assert [one.is_delegated for one in read_output(text).operators] == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no output"),
        ("ERROR: Could not open 'x.tflite'.\nERROR: failed\n", "ERROR: failed"),
        ("count=3 first=", "incomplete"),
        ("count=0 first=0 curr=0 min=0 max=0 avg=0 std=0", "0 us"),
        (f"count={400 * '9'} first=1 curr=1", "out of range"),
        ("count=3 first=1e999 curr=1", "out of range"),
        ("count=3 first=1.2.3 curr=1", "could not convert"),
        ("count=3 first=1 min=1 max=2 avg=1 std=0", "incomplete"),
    ],
)
def test_an_output_without_timings_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_output(text)


def test_a_profile_that_is_cut_off_is_read_as_far_as_it_goes() -> None:
    text = recorded("tflite-2.8-riscv64-profiled.txt")
    middle = text.index("Conv2d_6_pointwise")
    assert 0 < len(read_output(text[:middle]).operators) < 31


@pytest.mark.parametrize(("average", "n"), [("nan", "1"), ("inf", "1"), ("-1", "1"), ("1", "-1")])
def test_a_profile_with_odd_numbers_is_refused(average: str, n: str) -> None:
    text = recorded("tflite-2.8-riscv64-profiled.txt")
    row = next(line for line in text.splitlines() if line.startswith("\t") and "CONV" in line)
    cells = row.split("\t")
    title = next(line for line in text.splitlines() if "[node type]" in line).split("\t")
    names = [cell.strip(" []").lower() for cell in title]
    cells[names.index("avg ms")], cells[names.index("times called")] = average, n
    with pytest.raises(ValueError, match="out of range"):
        read_output(text.replace(row, "\t".join(cells)))
