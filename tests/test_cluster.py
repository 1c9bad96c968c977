"""Building on a Dask cluster: a scheduler and two workers of this machine."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fvrid_tools import cluster as cluster_module
from fvrid_tools.cli import cli

pytest.importorskip("distributed")


def wait_for(path: Path, pattern: str) -> None:
    for _ in range(1200):
        if list(path.glob(pattern)):
            return
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} within 60 s")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list["subprocess.Popen[bytes]"]]]:
    """A scheduler's address, and two workers of one thread each, which nobody starts again."""
    (tmp_path / "dask").mkdir()
    file = tmp_path / "dask" / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path / "dask"}
    options = ["--scheduler-file", str(file)]
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", *options, "--port", "0", "--no-dashboard"]
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        *options,
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
    ]
    running = [subprocess.Popen(dask, **quiet)]  # type: ignore[call-overload]
    try:
        wait_for(file.parent, file.name)
        running += [subprocess.Popen(worker, **quiet) for _ in range(2)]  # type: ignore[call-overload]
        yield json.loads(file.read_text())["address"], running[1:]
    finally:
        for process in running:
            process.kill()
            process.wait()


def build(out: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["build-syn", "--src", "mini", "--out", str(out), *options])


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_writes_the_bytes_of_one_process(
    tmp_path: Path, cluster: tuple[str, list["subprocess.Popen[bytes]"]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, workers = cluster
    monkeypatch.chdir(tmp_path)  # a relative --out is the same folder for the workers
    command = [
        sys.executable,
        "-m",
        "fvrid_tools",
        "build-syn",
        "--src",
        "mini",
        "--out",
        "on-dask",
        "--scheduler",
        address,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path, "on-dask/shard-*.h5")
    workers[0].kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert build(tmp_path / "one", "--workers", "1").exit_code == 0
    one, other = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())} for name in ("one", "on-dask")
    )
    assert one == other


def test_where_no_scheduler_answers_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "PATIENCE", 0.5)
    result = build(tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    assert result.exit_code == 1
    assert "no Dask scheduler answers there" in result.stderr
    assert "Traceback" not in result.output
    result = build(tmp_path / "out", "--scheduler", "nonsense://")
    assert result.exit_code == 1
    assert "no Dask scheduler answers there" in result.stderr
