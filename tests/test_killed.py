"""Builds that are killed, interrupted, out of space or crossed: what is finished stays, a rerun completes."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fvrid_tools import files, manifest
from fvrid_tools.verify import find_problems

BUILD = [sys.executable, "-m", "fvrid_tools", "build-syn", "--src", "mini", "--workers", "2", "--out"]
KILLS = 20

Contents = dict[str, bytes]


def contents(folder: Path) -> Contents:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def start(out: Path, *options: str, **process: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([*BUILD, str(out), *options], stderr=subprocess.PIPE, text=True, **process)  # type: ignore[call-overload, no-any-return]


def finish(out: Path, *options: str) -> None:
    subprocess.run([*BUILD, str(out), *options], check=True, capture_output=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten shards of FVRID-Mini. Not to be changed."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(out)
    return out


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "out"
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


def finished_shards(out: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("shard-*.h5")}


@pytest.mark.slow
def test_killed_at_twenty_random_moments(undisturbed: Path, out: Path) -> None:
    rng = random.Random(0)
    began = time.monotonic()
    finish(out.with_name("timed"))
    whole = time.monotonic() - began
    finished: dict[str, tuple[int, int]] = {}
    for _ in range(KILLS):
        process = start(out, start_new_session=True)
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.1, 1) * whole)
        victim = rng.choice((os.kill, os.killpg))  # the command alone, whose workers must end by themselves, or all
        if process.poll() is None:
            victim(process.pid, signal.SIGKILL)
        process.communicate()
        now = finished_shards(out) if out.exists() else {}
        assert finished.items() <= now.items(), "a finished shard was made again"
        finished = now
    finish(out)
    assert finished.items() <= finished_shards(out).items()
    assert contents(out) == contents(undisturbed)


@pytest.mark.slow
def test_an_interrupt_is_one_sentence_and_leaves_no_process(out: Path) -> None:
    slow = "--codec", "png"
    process = start(out, *slow, start_new_session=True, preexec_fn=heed_interrupts)
    wait_for_a_shard(out)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "Error: stopped; the same command goes on where it was."
    assert "Traceback" not in errors
    for _ in range(100):  # multiprocessing's own helper ends a little later
        if not is_alive(process.pid):
            break
        time.sleep(0.1)
    assert not is_alive(process.pid)
    before = finished_shards(out)
    finish(out, *slow)
    assert before.items() <= finished_shards(out).items()
    assert find_problems(out) == []


def heed_interrupts() -> None:
    """A shell starts what it puts in the background deaf to them, the tests with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_a_shard(out: Path) -> None:
    for _ in range(600):
        if list(out.glob("shard-*.h5")):
            return
        time.sleep(0.02)
    raise AssertionError("no shard within 12 s")


@pytest.mark.parametrize(
    "limit", [pytest.param(20_000, marks=pytest.mark.slow), pytest.param(500_000, marks=pytest.mark.slow), 3_000_000]
)
def test_a_disk_that_takes_no_more_is_one_sentence(undisturbed: Path, out: Path, limit: int) -> None:
    """A limit on the size of files stands for the full disk: a write fails in its midst."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(out, preexec_fn=limited)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot be written" in errors
    assert "Traceback" not in errors
    assert not [path for path in out.iterdir() if path.stat().st_size == limit]
    finish(out)
    assert contents(out) == contents(undisturbed)


@pytest.mark.slow
def test_a_second_build_in_the_folder_is_refused_and_the_first_goes_on(undisturbed: Path, out: Path) -> None:
    first = start(out)
    wait_for_a_shard(out)
    second = start(out)
    _, errors = second.communicate(timeout=60)
    first.communicate(timeout=60)
    if second.returncode:  # else the first was done already
        assert "another process is at work here" in errors
    assert first.returncode == 0
    assert contents(out) == contents(undisturbed)


def test_the_lock_is_of_the_folder_and_ends_with_its_holder(tmp_path: Path) -> None:
    code = f"import pathlib; from fvrid_tools import files\nwith files.alone_in(pathlib.{tmp_path!r}): print('in')"
    with files.alone_in(tmp_path):
        held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process is at work here" in held.stderr
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "in\n"


def test_what_a_killed_holder_had_forked_holds_nothing(tmp_path: Path) -> None:
    """A loader's processes notice within seconds only, and the next run is not to wait for them."""
    code = (
        f"import os, time, pathlib; from fvrid_tools import files\nwith files.alone_in(pathlib.{tmp_path!r}):\n"
        " child = os.fork()\n if not child: time.sleep(60)\n print(child, flush=True); os.kill(os.getpid(), 9)"
    )
    with (tmp_path / "child").open("w") as out:  # no pipe, whose end the child would hold
        subprocess.run([sys.executable, "-c", code], stdout=out, check=False, timeout=30)
    child = (tmp_path / "child").read_text()
    try:
        with files.alone_in(tmp_path):
            os.kill(int(child), 0)  # it lives
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_source_that_lost_an_image_is_built_from_what_is_left(tmp_path: Path, laid_out: Path) -> None:
    root = Path(shutil.copytree(laid_out / "clear", tmp_path / "in"))
    options = ["--src", "veri-wild", "--root", str(root), "--depth", "planar", "--workers", "1"]
    command = [*BUILD[:4], *options, "--out"]
    code = (
        "import sys; from fvrid_tools import pictures; from fvrid_tools.cli import cli; whole = pictures.read_image\n"
        "def vanish(record):\n"
        "    if record.source_path.endswith('000007.jpg'): record.path.unlink()\n"
        "    return whole(record)\n"
        "pictures.read_image = vanish; cli()\n"
    )
    lost = subprocess.run(
        [sys.executable, "-c", code, *command[3:], str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert lost.returncode == 1
    assert "000007.jpg: cannot be read (No such file or directory)" in lost.stderr
    assert not (tmp_path / "out" / manifest.DATASET).exists()
    subprocess.run([*command, str(tmp_path / "out")], check=True, capture_output=True)
    assert '000007,"listed, but not on disk"' in (tmp_path / "out" / manifest.REJECTS).read_text()
    assert find_problems(tmp_path / "out") == []
