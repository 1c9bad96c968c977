import random
from pathlib import Path

import pytest

from fvrid_tools import manifest
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
