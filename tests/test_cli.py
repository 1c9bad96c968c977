import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import layouts
import pytest
from click.testing import CliRunner, Result

import fvrid_tools
from fvrid_tools import manifest
from fvrid_tools.cli import cli as fvrid
from fvrid_tools.density import fog_density
from fvrid_tools.files import atomic_path, sentence_of
from fvrid_tools.fog import PRESETS
from fvrid_tools.split import TEST_SHARE
from sjdl_model.cli import cli as sjdl

ROOT = Path(__file__).parents[1]
COMMANDS = [(program, name) for program in (fvrid, sjdl) for name in program.commands]


def run(*arguments: object, program: click.Group = fvrid) -> Result:
    return CliRunner().invoke(program, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_every_command_explains_itself_and_is_in_the_readme(program: click.Group, name: str) -> None:
    result = run(name, "--help", program=program)
    assert result.exit_code == 0
    assert program.commands[name].help
    assert all(option.help for option in program.commands[name].params if isinstance(option, click.Option))
    assert f"{'fvrid' if program is fvrid else 'sjdl'} {name}" in (ROOT / "README.md").read_text()


def test_what_help_says_is_what_the_modules_have() -> None:
    """Which the commands import too late to ask."""
    from sjdl_model import conditions, evaluate, inference
    from sjdl_model.cli import CONDITIONS
    from sjdl_model.rerank import Rerank

    def said(command: str, name: str, what: str = "default") -> object:
        return next(getattr(option, what) for option in sjdl.commands[command].params if option.name == name)

    assert CONDITIONS == evaluate.CONDITIONS
    assert [float(beta) for beta in str(said("report", "betas")).split(",")] == list(conditions.BETAS)
    k1, k2, lam = str(said("eval", "rerank", "flag_value")).split(",")
    assert Rerank(int(k1), int(k2), float(lam)) == Rerank()
    (share,) = (option.default for option in fvrid.commands["split"].params if option.name == "test_share")
    assert share == TEST_SHARE
    assert said("embed", "batch") == evaluate.BATCH
    assert said("defog", "max_side") == inference.MAX_SIDE


@pytest.mark.parametrize("module", ["fvrid_tools.cli", "sjdl_model.cli"])
def test_help_waits_for_no_heavy_import(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'numpy', 'h5py', 'cv2', 'jinja2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_readmes_commands_work(laid_out: Path, tmp_path: Path) -> None:
    out = tmp_path / "syn"
    result = run("build-syn", "--src", "veri-wild", "--root", laid_out / "clear", "--out", out)
    assert result.exit_code == 0, result.output
    assert "48 images of 12 vehicles" in result.stdout
    assert "FVRID_Syn" in run("split", out).stdout
    assert run("verify", out).exit_code == 0
    counts = json.loads(run("stats", out, "--json").stdout)
    assert counts["domain"] == "synthetic"
    assert counts["counts"]["all"]["query"] == {"identities": 3, "images": 3}
    assert "9/36" in run("stats", out).stdout
    assert run("report", out, "-o", tmp_path / "page.html").exit_code == 0
    assert run("export", out, "--format", "folder", "--out", tmp_path / "folder").exit_code == 0


def test_build_real_and_pattern(laid_out: Path, tmp_path: Path) -> None:
    pattern = r"(?P<vehicle_id>\d+)/c(?P<camera_id>\d+)"
    arguments = (
        "--src",
        "folder",
        "--root",
        laid_out / "foggy",
        "--out",
        tmp_path / "real",
        "--pattern",
        pattern,
    )
    assert run("build-real", *arguments).exit_code == 0
    assert len(fvrid_tools.open_dataset(tmp_path / "real")) == 48


def test_a_recipe_and_a_list_choose_and_are_named_in_the_command(laid_out: Path, tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text(
        'domain = "synthetic"\n[veri-wild]\ntrain = {vehicles = 4, images = 13}\n'
        "query = {vehicles = 2, images = 2}\ngallery = {vehicles = 2, images = 5}\n"
    )
    rows = [f"i,n,Veriwild,FVRID_syn/train_clear,{v:05d}/{i:06d}.jpg\n" for v, i in ((0, 1), (1, 5))]
    (tmp_path / "two.csv").write_text("IMG,NAME,SOURCE,SAVE,ORI_NAME\n" + "".join(rows))
    source = ("build-syn", "--src", "veri-wild", "--root", laid_out / "clear", "--depth", "planar")
    for option, path, count in (("--recipe", "few.toml", 20), ("--labels", "two.csv", 2)):
        result = run(*source, option, tmp_path / path, "--out", tmp_path / option)
        assert result.exit_code == 0, result.output
        assert f"{count} images" in result.stdout
        assert f"{option} {tmp_path / path}" in manifest.read_dataset(tmp_path / option)["command"]
    assert run(*source, "--recipe", "a", "--labels", "b", "--out", tmp_path / "x").exit_code == 2
    assert run("split", tmp_path / "--recipe").stdout.splitlines()[1].split()[1:4] == ["4/13", "2/2", "2/5"]


def test_clear_images_are_not_taken_for_fog_without_a_word(laid_out: Path, tmp_path: Path) -> None:
    source = ("build-real", "--src", "veri-wild", "--root", laid_out / "clear", "--out")
    assert "veri-wild: all its images are taken, and most were not taken in fog" in run(*source, tmp_path / "a").stderr
    (tmp_path / "picked.csv").write_text("IMG,NAME,SOURCE,SAVE,ORI_NAME\ni,n,Veriwild,FVRID_real,00000/000001.jpg\n")
    result = run(*source, tmp_path / "b", "--labels", tmp_path / "picked.csv")
    assert result.exit_code == 0, result.output
    assert "not taken in fog" not in result.stderr


def test_a_recipe_whose_images_cannot_be_used_says_so(laid_out: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(laid_out / "clear", tmp_path / "clear"))
    for path in sorted(root.rglob("*.jpg")):
        path.write_bytes(path.read_bytes() if path.parent.name == "00003" else b"")
    (tmp_path / "few.toml").write_text(
        'domain = "synthetic"\n[veri-wild]\ntrain = {vehicles = 4, images = 13}\n'
        "query = {vehicles = 8, images = 8}\ngallery = {vehicles = 8, images = 20}\n"
    )
    source = ("build-syn", "--src", "veri-wild", "--root", root, "--depth", "planar", "--out", tmp_path / "out")
    result = run(*source, "--recipe", tmp_path / "few.toml")
    assert result.exit_code == 0, result.output
    built = int(result.stdout.split("out: ")[1].split()[0])
    assert f"{41 - built} of them drawn by --recipe, whose counts are missed" in result.stdout


def test_fog_that_a_source_brings_is_stored_as_it_is(tmp_path: Path) -> None:
    layouts.write(tmp_path, layouts.FVRID)
    for option in (("--codec", "jpeg"), ("--max-density", "0.5")):
        result = run("build-syn", "--src", "fvrid", "--root", tmp_path, "--out", tmp_path / "out", *option)
        assert result.exit_code == 2
        assert "leave --codec and --max-density out" in " ".join(result.output.split())


def test_real_images_are_those_in_fog(laid_out: Path, tmp_path: Path) -> None:
    pattern = ("--pattern", r"(?P<vehicle_id>\d+)/")
    source = ("build-real", "--src", "folder", "--root", laid_out, *pattern, "--out")
    assert run(*source, tmp_path / "all").exit_code == 0
    result = run(*source, tmp_path / "foggy", "--min-density", "0.25")
    assert result.exit_code == 0, result.output
    every, foggy = (fvrid_tools.open_dataset(tmp_path / name) for name in ("all", "foggy"))
    dense = {row.image_id for row, sample in zip(every.rows, every, strict=True) if fog_density(sample.foggy) >= 0.25}
    assert {row.image_id for row in foggy.rows} == dense
    assert 0 < len(foggy) < len(every)
    assert foggy.info["command"].endswith("--min-density 0.25 --seed 0")
    refused = run("build-real", "--src", "veri-wild", *pattern, "--out", tmp_path / "x")
    assert refused.exit_code == 2
    assert "for --src folder" in " ".join(refused.output.split())


def test_verify_names_what_is_wrong_and_exits_1(copy: Path) -> None:
    (copy / "shard-00000.h5").unlink()
    result = run("verify", copy)
    assert result.exit_code == 1
    assert "shard-00000.h5: missing" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["build-syn", "--src", "veri-wild", "--root", "nowhere"], 1, "no such folder"),
        (["build-syn", "--src", "no-source"], 2, "no-source"),
        (["build-syn", "--src", "veri-wild", "--root", ".", "--beta", "2", "1"], 2, "--beta 2 1"),
        (["build-syn", "--src", "veri-wild", "--root", ".", "--airlight", "-1", "1"], 2, "--airlight -1 1"),
        (["build-syn", "--src", "folder", "--root", ".", "--pattern", "("], 2, "--pattern"),
        (["build-syn", "--src", "folder", "--root", ".", "--root", ".."], 2, "--root"),
        (["build-syn", "--src", "folder", "--depth", "magic"], 2, "--depth magic"),
        (["split", "nowhere", "--test-share", "nan"], 2, "'--test-share': nan is no number."),
        (["build-syn", "--src", "folder", "--max-density", "nan"], 2, "'--max-density': nan is no number"),
        (["split", "nowhere"], 1, "no finished dataset"),
        (["stats", "nowhere"], 1, "no finished dataset"),
        (["verify", "nowhere"], 1, "no finished dataset"),
    ],
)
def test_bad_usage_exits_2_and_bad_data_1_with_a_sentence(arguments: list[str], code: int, words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_an_unwritable_output_is_a_sentence(laid_out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("build-syn", "--src", "veri-wild", "--root", laid_out / "clear", "--out", tmp_path / "file")
    assert result.exit_code == 1
    assert "cannot be made" in result.stderr


def test_what_the_system_refuses_is_a_sentence_with_a_mend(built: Path, tmp_path: Path) -> None:
    result = run("report", built, "-o", tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path}: is no file; name a file." in result.stderr
    assert tmp_path.is_dir()
    error = OSError(errno.ENOSPC, "No space left on device", "a/b.csv")
    assert sentence_of(error) == "a/b.csv: No space left on device; free some space."
    assert sentence_of(OSError("a worker's\nimage file is truncated")) == "image file is truncated"
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "none" / "x") as unfinished:
        unfinished.write_text("")
    assert caught.value.filename == str(tmp_path / "none" / "x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="of Linux")
def test_an_output_that_is_full_is_a_sentence(built: Path) -> None:
    command = [sys.executable, "-m", "fvrid_tools", "stats", str(built)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the output: No space left on device; free some space.")


def test_a_cluster_has_its_own_workers(laid_out: Path, tmp_path: Path) -> None:
    options = ["--src", "veri-wild", "--root", laid_out / "clear", "--depth", "planar", "--out", tmp_path / "o"]
    result = run("build-syn", *options, "--workers", 2, "--scheduler", "tcp://127.0.0.1:1")
    assert result.exit_code == 2
    assert "--workers and --scheduler" in result.stderr


def test_a_missing_source_says_where_it_comes_from_in_two_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FVRID_VERI_WILD", str(tmp_path / "vw"))
    result = run("build-syn", "--src", "veri-wild")
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 2
    assert str(tmp_path / "vw") in result.stderr
    assert "github.com/PKU-IMRE/VERI-Wild" in result.stderr
    assert "ROOT/images/<vehicle>/<image>.jpg" in result.stderr
    assert "--src mini, which needs no download" in result.stderr


def test_sjdl_says_what_is_wrong(built: Path, built_real: Path, tmp_path: Path) -> None:
    for arguments, code, words in (
        (
            ["train", "--run", tmp_path / "r", "--set", "p=3", "--set", "epoch=3"],
            2,
            "Error: --set epoch=3: there is no key epoch; did you mean",
        ),
        (["train", "--run", tmp_path / "r", "--recipe", "nothing"], 2, "baseline, default"),
        (["train", "--run", tmp_path / "r", "--data", tmp_path], 1, "no finished dataset"),
        (["train", "--run", tmp_path / "r", "--data", built, "--set", "p=99"], 1, "fewer than p = 99"),
        (["train", "--run", tmp_path / "r", "--data", built_real], 1, "not of the synthetic domain"),
        (["eval", "--data", built], 2, "--run or --weights"),
        (["eval", "--run", tmp_path / "nothing", "--data", built], 1, "no such weights file"),
        (["eval", "--weights", built / manifest.MANIFEST, "--data", built], 1, "not weights"),
        (["eval", "--run", tmp_path, "--data", built, "--domain", "real"], 1, "synthetic domain, not real"),
    ):
        result = run(*arguments, program=sjdl)
        assert result.exit_code == code, result.output
        assert words in result.stderr
        assert "Traceback" not in result.output
    assert not (tmp_path / "r").exists()


def test_an_error_in_a_worker_is_one_sentence_too(copy: Path, tmp_path: Path) -> None:
    path = copy / "shard-00000.h5"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3] + bytes(len(content) - len(content) // 3))
    options = [f"--set={change}" for change in ("backbone=resnet18", "pretrained=false", "image_size=32", "p=3", "k=2")]
    result = run("train", "--data", copy, "--run", tmp_path / "r", *options, "--set=workers=1", program=sjdl)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "shard-00000.h5" in result.stderr


def test_progress_goes_to_stderr_and_data_to_stdout(built: Path, tmp_path: Path) -> None:
    options = ["backbone=resnet18", "pretrained=false", "image_size=32", "p=3", "k=2", "epochs=1", "steps_per_epoch=1"]
    changes = [f"--set={change}" for change in (*options, "workers=0")]
    result = run("train", "--data", built, "--run", tmp_path / "r", *changes, program=sjdl)
    assert result.stdout == f"{tmp_path / 'r/report.html'}\n"
    assert "synthetic/triplet" in result.stderr
    result = run("eval", "--run", tmp_path / "r", "--data", built, "--json", "--workers", "0", program=sjdl)
    assert 0 < json.loads(result.stdout)["mAP"] <= 1
    weights = ("--weights", tmp_path / "r/weights.safetensors")
    same = run("eval", *weights, "--data", built, "--json", "--workers", "0", program=sjdl)
    assert json.loads(same.stdout) == json.loads(result.stdout)


def test_every_range_of_fog_can_be_asked_for_by_name() -> None:
    (fog,) = (option for option in fvrid.commands["build-syn"].params if option.name == "fog")
    assert isinstance(fog.type, click.Choice)
    assert set(fog.type.choices) == {*PRESETS, "source"}
