"""Progress says the rate and the time left, and writes plain lines where there is no terminal."""

import io

import pytest

from mmpt.commands.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_has_rate_and_time_left() -> None:
    with Progress(1000, "image", io.StringIO()) as progress:
        progress(200)  # there from a run before
        assert progress.line(300, 10.0) == "300 of 1,000 images, 10.0 images/s, 70 s left"
    with Progress(None, "row", io.StringIO()) as progress:
        progress(0)
        assert progress.line(50, 2.0) == "50 rows, 25.0 rows/s"


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (720, "12 min"), (12_000, "3 h 20 min")])
def test_duration_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_terminal_line_is_rewritten_and_a_file_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("mmpt.commands.progress.time.monotonic", lambda: clock[0])
    monkeypatch.setenv("COLUMNS", "30")  # a narrow terminal would wrap a longer line
    outputs = []
    for stream in (Terminal(), io.StringIO()):
        clock[0] = 0.0
        with Progress(10, "image", stream) as progress:
            for done in range(1, 4):
                clock[0] += 40
                progress(done)
            progress(10)  # so soon that it is not shown, until the end
        outputs.append(stream.getvalue())
    assert outputs[0].count("\r") == 4
    assert all(len(line.rstrip()) < 30 for line in outputs[0].split("\r"))
    assert outputs[0].endswith("\r10 of 10 images, 0.1 images/s\n")
    assert "\r" not in outputs[1]
    assert len(outputs[1].splitlines()) == 3
