import random
from pathlib import Path

import pytest

from fvrid_tools import build, manifest, sources
from fvrid_tools.records import FvridError
from fvrid_tools.verify import find_problems


def test_an_unharmed_dataset_has_no_problem(built: Path, built_real: Path) -> None:
    assert find_problems(built) == []
    assert find_problems(built_real) == []


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_in_a_shard_is_found(copy: Path, seed: int) -> None:
    path = copy / "shard-00000.h5"
    content = bytearray(path.read_bytes())
    rng = random.Random(seed)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    assert [problem for problem in find_problems(copy) if "shard-00000.h5" in problem]


def test_a_missing_and_a_truncated_shard_are_found(copy: Path) -> None:
    path = copy / "shard-00000.h5"
    path.write_bytes(path.read_bytes()[:-1])
    assert "SHA-256" in find_problems(copy)[0]
    path.unlink()
    assert "missing" in find_problems(copy)[0]


def test_a_missing_list_of_rejects_is_found(copy: Path) -> None:
    (copy / manifest.REJECTS).unlink()
    assert "rejects.csv" in find_problems(copy)[0]


@pytest.mark.parametrize(("old", "new"), [(",train,", ",query,"), ("00000/000001,", "00000/00000x,"), (",1,", ",2,")])
def test_a_changed_row_is_found(copy: Path, old: str, new: str) -> None:
    path = copy / manifest.MANIFEST
    path.write_text(path.read_text().replace(old, new, 1))
    assert any("manifest.csv" in problem for problem in find_problems(copy))


def test_a_changed_row_is_found_even_with_its_hash(copy: Path) -> None:
    rows = manifest.read_manifest(copy)
    info = manifest.read_dataset(copy)
    info["manifest_sha256"] = manifest.write_manifest(copy, [rows[0]._replace(beta=1.0), *rows[2:]])
    manifest.write_dataset(copy, info)
    problems = find_problems(copy)
    assert len(problems) == 2
    assert rows[0].image_id in problems[0]
    assert rows[1].image_id in problems[1]


@pytest.fixture(scope="module")
def of_five_shards(laid_out: Path, recipe: build.Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("five") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "IMAGES_PER_SHARD", 10)
        build.build([sources.read_source("veri-wild", laid_out / "clear")], out, recipe)
    return out


def injure(folder: Path, rng: random.Random) -> str:
    """One random injury; what it was."""
    shards = sorted(folder.glob("shard-*.h5"))
    kind = rng.choice(("flip", "flip", "flip", "truncate", "lose", "row", "swap"))
    if kind == "flip":
        path = rng.choice(sorted(folder.iterdir()))
        content = bytearray(path.read_bytes())
        position, bit = rng.randrange(len(content)), rng.randrange(8)
        content[position] ^= 1 << bit
        path.write_bytes(content)
        return f"bit {bit} of byte {position} of {path.name} flipped"
    if kind == "truncate":
        path = rng.choice(shards)
        size = rng.randrange(path.stat().st_size)
        path.write_bytes(path.read_bytes()[:size])
        return f"{path.name} cut off after {size} bytes"
    if kind == "lose":
        path = rng.choice(shards)
        path.unlink()
        return f"{path.name} lost"
    if kind == "row":
        path = folder / manifest.MANIFEST
        lines = path.read_text().splitlines(keepends=True)
        i = rng.randrange(1, len(lines))
        cells = lines[i].rstrip("\n").split(",")
        column = rng.randrange(len(cells))
        cells[column] = "7" if cells[column] != "7" else "8"
        path.write_text("".join([*lines[:i], ",".join(cells) + "\n", *lines[i + 1 :]]))
        return f"row {i}, column {column} of the manifest changed"
    one, other = rng.sample(shards, 2)
    content_of_one = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content_of_one)
    return f"{one.name} and {other.name} swapped"


def test_of_200_random_injuries_none_is_missed_and_none_invented(of_five_shards: Path) -> None:
    rng = random.Random(0)
    whole = {path: path.read_bytes() for path in of_five_shards.iterdir()}
    missed, invented = [], []
    for _ in range(200):
        what = injure(of_five_shards, rng)
        try:
            found = bool(find_problems(of_five_shards))
        except FvridError:
            found = True
        if not found:
            missed.append(what)
        for path, content in whole.items():
            path.write_bytes(content)
        invented += find_problems(of_five_shards)
    assert (missed, invented) == ([], [])
