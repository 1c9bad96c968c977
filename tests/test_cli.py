import errno
import json
import os
import re
import shlex
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


def test_a_dataset_goes_through_every_command(laid_out: Path, tmp_path: Path) -> None:
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


def commands(text: str) -> list[tuple[str, str]]:
    """Program and arguments of what Markdown has in blocks for a shell, fenced or indented."""
    joined = re.sub(r"\\\n\s*", "", text)
    fenced = re.findall(r"^ *```\n(.*?)^ *```", joined, re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^    .*$", joined, re.MULTILINE)
    return re.findall(r"\.venv/bin/(fvrid|sjdl) (.*?)(?= +#|&&|;|\n|$)", "\n".join([*fenced, *indented]))


@pytest.mark.parametrize("file", ["README.md", "docs/results.md"])
def test_commands_in_the_documents_are_such_that_could_be_given(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = commands((ROOT / file).read_text())
    assert found
    for program, said in found:
        said = re.sub(r"\$\(.*?\)(?!=)", "RUN", said).replace(" ...", " --data D --real R --out O")
        command, arguments = {"fvrid": fvrid, "sjdl": sjdl}[program], shlex.split(said)
        while isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
            command, arguments = command.commands[arguments[0]], arguments[1:]
        command.make_context(said, arguments, resilient_parsing=False)  # click's own error otherwise


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "train --data data/fvrid-syn --recipe default --run runs/default"),
        (["DATA=data/own"], "train --data data/own --recipe default --run runs/default"),
        (
            ["DATA=data/own", "REAL=data/own-fog", "RUN=runs/own"],
            "train --data data/own --real data/own-fog --recipe default --run runs/own",
        ),
        (
            ["RECIPE=demo", "SET=epochs=4 k=2", "RESUME=1"],
            "train --resume --data data/fvrid-syn --recipe demo --run runs/demo --set epochs=4 --set k=2",
        ),
        (
            ["GPUS=4"],
            "--nproc-per-node 4 -m -- sjdl_model train --data data/fvrid-syn --recipe default --run runs/default",
        ),
    ],
)
def test_make_train_says_what_is_asked_for(tmp_path: Path, given: list[str], expected: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv").mkdir()
    for name in ("setup.cfg", "pyproject.toml", ".venv/installed"):  # installed, as it is the latest
        (tmp_path / name).touch()
    (tmp_path / "data/fvrid-syn").mkdir(parents=True)

    def said(*arguments: str) -> str:
        command = ["make", "--dry-run", "train", *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return " ".join(done.stdout.replace("\\\n", " ").split())

    assert said(*given).endswith(expected)
    (tmp_path / "data/fvrid-real").mkdir()
    (tmp_path / "data/fvrid-real/dataset.json").touch()
    with_real = "--data data/fvrid-syn --real data/fvrid-real"  # taken with FVRID_Syn, and with no other
    assert said(*given).endswith(expected.replace("--data data/fvrid-syn", with_real))
    assert "--real" not in said(*given, "REAL=")


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


def test_fog_that_a_source_brings_takes_no_options_of_fog_that_is_made(tmp_path: Path) -> None:
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
    source = ("build-syn", "--src", "folder", "--root", laid_out, *pattern, "--depth", "planar", "--out")
    result = run(*source, tmp_path / "clear", "--max-density", "0.25")
    assert result.exit_code == 0, result.output
    clear = fvrid_tools.open_dataset(tmp_path / "clear")
    assert {row.image_id for row in clear.rows} == {row.image_id for row in every.rows} - dense
    assert clear.info["max_density"] == 0.25
    assert "--max-density 0.25" in clear.info["command"]
    assert (tmp_path / "clear" / manifest.REJECTS).read_text().count("foggy already: its fog density is") == len(dense)
    refused = run("build-real", "--src", "veri-wild", *pattern, "--out", tmp_path / "x")
    assert refused.exit_code == 2
    assert "for --src folder" in " ".join(refused.output.split())


def test_a_split_like_another(copy: Path, built: Path, tmp_path: Path) -> None:
    assert run("split", copy, "--ignore-lists", "--seed", "7").exit_code == 0
    wanted = {row.identity for row in manifest.read_manifest(built) if row.split != "train"}
    assert {row.identity for row in manifest.read_manifest(copy) if row.split != "train"} != wanted
    result = run("split", copy, "--like", built)
    assert result.exit_code == 0, result.output
    assert {row.identity for row in manifest.read_manifest(copy) if row.split != "train"} == wanted
    result = run("split", copy, "--like", built, "--labels", tmp_path / "x.csv")
    assert result.exit_code == 2
    assert "--labels and --recipe name the vehicles themselves" in " ".join(result.output.split())


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
    assert f"synthetic: 36 images of 9 vehicles of veri-wild in {built}" in result.stderr
    assert "no --real: trained on synthetic images alone" in result.stderr
    assert "synthetic/triplet" in result.stderr
    result = run("eval", "--run", tmp_path / "r", "--data", built, "--json", "--workers", "0", program=sjdl)
    assert 0 < json.loads(result.stdout)["mAP"] <= 1
    assert json.loads(result.stdout)["trained_on"] == fvrid_tools.open_dataset(built).info["command"]
    weights = ("--weights", tmp_path / "r/weights.safetensors")
    same = run("eval", *weights, "--data", built, "--json", "--workers", "0", program=sjdl)
    assert json.loads(same.stdout) == json.loads(result.stdout)


def test_every_range_of_fog_can_be_asked_for_by_name() -> None:
    (fog,) = (option for option in fvrid.commands["build-syn"].params if option.name == "fog")
    assert isinstance(fog.type, click.Choice)
    assert set(fog.type.choices) == {*PRESETS, "source"}
