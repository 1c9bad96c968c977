"""Training as jobs meet it: several processes, one of them killed, and the signals of a scheduler."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from sjdl_model.checkpoint import load_checkpoint
from sjdl_model.network import WEIGHTS
from sjdl_model.report import METRICS

OFF = {f"weights.{term}": 0 for term in ("color_entropy", "dark_channel", "total_variation", "self_constraint")}
SETTINGS = {"pretrained": "false", "image_size": 32, "p": 2, "k": 2, "workers": 1, "save_every": 1}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--")


def start(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, *(launcher or ("-m",)), "sjdl_model", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload, no-any-return]


def train(
    built: Path, real: Path, run: Path, *options: str, launcher: tuple[str, ...] = (), **settings: object
) -> subprocess.Popen[str]:
    changes = [f"--set={key}={value}" for key, value in {**SETTINGS, **settings}.items()]
    return start("train", "--data", built, "--real", real, "--run", run, *changes, *options, launcher=launcher)


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def wait_for_epoch(run: Path, process: subprocess.Popen[str], epochs: int = 1) -> None:
    for _ in range(3000):
        if (run / METRICS).exists() and (run / METRICS).read_text().count("\n") >= epochs:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("no epoch in five minutes")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_a_terminated_one_saves_first(built: Path, built_real: Path, tmp_path: Path) -> None:
    settings = {"backbone": "test_resnet", "last_stride": 2, "epochs": 30, "steps_per_epoch": 2}
    undisturbed = train(built, built_real, tmp_path / "undisturbed", **settings)

    run = tmp_path / "run"
    process = train(built, built_real, run, **settings)
    wait_for_epoch(run, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert 0 < load_checkpoint(run)["step"] < 60

    process = train(built, built_real, run, "--resume", **settings)
    wait_for_epoch(run, process, load_checkpoint(run)["step"] // 2 + 2)
    os.killpg(process.pid, signal.SIGTERM)  # as schedulers do: the whole job, loaders too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "go on with --resume" in err
    assert "Traceback" not in err
    step = load_checkpoint(run)["step"]
    assert step < 60
    assert not (run / WEIGHTS).exists()

    finished(train(built, built_real, run, "--resume", **settings))
    finished(undisturbed)
    one, other = load_file(run / WEIGHTS), load_file(tmp_path / "undisturbed" / WEIGHTS)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_saves_every_run_of_an_ablation(
    built: Path, built_real: Path, tmp_path: Path, number: signal.Signals
) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "begin.pth")
    settings = {"backbone": "test_resnet", "last_stride": 2, "epochs": 9999, "steps_per_epoch": 2}
    settings |= {**SETTINGS, "save_every": 0, **settings, "pretrained": tmp_path / "begin.pth"}
    changes = [f"--set={key}={value}" for key, value in settings.items()]
    arms = ("--arms", "baseline,sjdl", "--seeds", 3, "--jobs", 2, "--out", tmp_path / "out")
    process = start("ablate", "--data", built, "--real", built_real, *changes, *arms)
    runs = [tmp_path / "out/runs" / arm / "0" for arm in ("baseline", "sjdl")]
    for run in runs:
        wait_for_epoch(run, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)  # as a scheduler may
    _, err = process.communicate(timeout=60)
    code, said = (1, "Error: stopped") if number == signal.SIGINT else (143, f"{tmp_path / 'out'}: stopped")
    assert process.returncode == code
    assert err.splitlines()[-1] == f"{said}; the same command goes on."
    assert "Traceback" not in err
    for run in runs:
        assert load_checkpoint(run)["step"] > 0
    assert not (tmp_path / "out/runs/baseline/1").exists()  # what waited was not begun


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds a rank's process in /proc")
def test_two_processes_train_as_one_does_even_after_one_is_killed(
    built: Path, built_real: Path, tmp_path: Path
) -> None:
    """With a backbone without BN, whose statistics two CPU processes would each take of their own half.

    Every second step has a real batch, which leaves the defogging branch without a gradient.
    """
    settings = {"backbone": "test_convnext", "last_stride": 2, "epochs": 16, "steps_per_epoch": 3, "real_every": 2}
    settings |= {"lr": 1e-4, "p": 3, "k": 2, **OFF}
    alone = train(built, built_real, tmp_path / "alone", **settings)
    run = tmp_path / "run"
    together = train(built, built_real, run, launcher=TORCHRUN, **settings)
    wait_for_epoch(run, together)
    os.kill(child_of_rank(1, together.pid), signal.SIGKILL)
    _, err = together.communicate(timeout=120)
    assert together.returncode != 0
    step = load_checkpoint(run)["step"]
    assert 0 < step < 48, err

    together = train(built, built_real, run, "--resume", launcher=TORCHRUN, **settings)
    wait_for_epoch(run, together, step // 3 + 2)
    together.send_signal(signal.SIGTERM)  # the launcher hands it on
    _, err = together.communicate(timeout=120)
    assert "go on with --resume" in err
    assert step < load_checkpoint(run)["step"] < 48

    finished(train(built, built_real, run, "--resume", launcher=TORCHRUN, **settings))
    finished(alone)
    one, other = (
        [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
        for folder in (run, tmp_path / "alone")
    )
    assert len(one) == len(other) == 16
    for mine, theirs in zip(one, other, strict=True):
        terms = [name for name in mine if name.count("/") == 1 and not name.startswith("defogging")]
        assert len(terms) == 5
        for name in terms:
            assert mine[name] == pytest.approx(theirs[name], rel=2e-3, abs=1e-4), name

    arguments = ("eval", "--run", run, "--data", built, "--workers", 0, "--json")
    shared = json.loads(finished(start(*arguments, launcher=TORCHRUN)))
    single = json.loads(finished(start(*arguments)))
    assert shared == {**single, "mAP": pytest.approx(single["mAP"], abs=1e-6)}


def child_of_rank(rank: int, launcher: int) -> int:
    """The process that torchrun started with this rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    wanted = f"RANK={rank}".encode()
    (child,) = (pid for pid in children if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    return int(child)
