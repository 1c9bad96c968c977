"""What is seen of a long task where no bar can be drawn."""

import pytest

from fvrid_tools import progress


def test_a_log_gets_whole_lines_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with progress.bar(4, "build") as shown:
        shown.update(1)
        shown.update(2)
    assert list(progress.bar(2, "epoch 1/3", "steps", over="ab")) == ["a", "b"]
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert [line.partition(",")[0] for line in lines if line.startswith("build: ")][-2:] == [
        "build: 1 of 4 images",
        "build: 3 of 4 images",
    ]
    assert any(line.startswith("epoch 1/3: 1 of 2 steps, ") and line.endswith(" left") for line in lines)
    with progress.bar(2, "ablate", "runs") as outer:
        for _ in range(2):
            list(progress.bar(2, "epoch 1/3", "steps", over="ab"))
            outer.update(1)
    captured_too = capsys.readouterr().err
    assert "ablate: 2 of 2 runs, " in captured_too
    assert "\x1b" not in captured_too
    monkeypatch.setenv("TQDM_DISABLE", "1")
    list(progress.bar(2, "epoch 1/3", "steps", over="ab"))
    assert not capsys.readouterr().err
    assert not captured.out
    assert "\r" not in captured.err


def test_a_short_task_says_nothing_there(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar(4, "build", leave=True) as shown:
        shown.update(4)
    assert capsys.readouterr().err == ""
