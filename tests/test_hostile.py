"""Mutated images, lists, tables and recipes: refused in a sentence, never a crash, and nothing is written elsewhere."""

import contextlib
import io
import shutil
from pathlib import Path

import mini_layouts
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fvrid_tools import images, labels, manifest, quotas
from fvrid_tools.cli import cli
from fvrid_tools.records import FvridError, ImageRefused

Mutation = list[tuple[str, float, bytes]]

mutations = st.lists(
    st.tuples(
        st.sampled_from(("replace", "insert", "delete", "cut", "repeat")),
        st.floats(0, 1),
        st.one_of(
            st.binary(min_size=1, max_size=12),
            st.sampled_from(
                (b"\0", b"../../x", b"/etc/passwd", b"\xff\xfe", b"\n", b",,,", b'"', b"NaN", b"-1", b"9" * 400)
            ),
        ),
    ),
    min_size=1,
    max_size=4,
)
hostile = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mutate(content: bytes, mutation: Mutation) -> bytes:
    for kind, share, piece in mutation:
        at = int(share * len(content))
        if kind == "replace":
            content = content[:at] + piece + content[at + len(piece) :]
        elif kind == "insert":
            content = content[:at] + piece + content[at:]
        elif kind == "delete":
            content = content[:at] + content[at + len(piece) :]
        elif kind == "cut":
            content = content[:at]
        else:
            content = content[:at] + content[at // 2 : at] * 3 + content[at:]
    return content


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    mini_layouts.picture(1, 0).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
@settings(max_examples=40)
@given(mutation=mutations)
def test_a_mutated_image_is_decoded_or_refused(form: str, mutation: Mutation) -> None:
    content = mutate(encoded(form), mutation)
    for decode in (images.decode, images.decode_depth):
        with contextlib.suppress(ImageRefused):
            assert decode(content).ndim in (2, 3)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(form: str) -> None:
    file = io.BytesIO()
    options = {"compression": "tiff_deflate"} if form == "TIFF" else {}
    Image.new("1", (30_000, 30_000)).save(file, form, **options)
    with pytest.raises(ImageRefused, match=r"more than 64000000|decompression bomb"):
        images.decode(file.getvalue())


@hostile
@given(mutation=mutations)
def test_mutated_labels_are_read_or_refused(mutation: Mutation, tmp_path: Path) -> None:
    rows = "i,n,Veriwild,FVRID_syn/train_clear,00001/000001.jpg\ni,n,V,FVRID_real/query_foggy,2.jpg\n"
    (tmp_path / "l.csv").write_bytes(mutate(b"IMG,NAME,SOURCE,SAVE,ORI_NAME\n" + rows.encode() * 5, mutation))
    with contextlib.suppress(FvridError):
        assert labels.read_labels(tmp_path / "l.csv", "synthetic")


@hostile
@given(mutation=mutations)
def test_a_mutated_recipe_is_read_or_refused(mutation: Mutation, tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "manifests/fvrid_syn.toml"
    (tmp_path / "r.toml").write_bytes(mutate(path.read_bytes(), mutation))
    with contextlib.suppress(FvridError):
        assert quotas.read_recipe(str(tmp_path / "r.toml"), "synthetic")


@pytest.mark.parametrize("name", [manifest.MANIFEST, manifest.DATASET])
@hostile
@given(mutation=mutations)
def test_a_mutated_dataset_is_found_out(name: str, mutation: Mutation, built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    if not copy.exists():
        shutil.copytree(built, copy)
    before = (built / name).read_bytes()
    (copy / name).write_bytes(after := mutate(before, mutation))
    for command in ("verify", "stats", "split"):
        result = CliRunner().invoke(cli, [command, str(copy)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        if command == "verify":
            assert result.exit_code == (after != before)
    for path in copy.iterdir():
        path.write_bytes((built / path.name).read_bytes())


@pytest.mark.parametrize("split", ["../../elsewhere", "/tmp/elsewhere", "test"])
def test_a_manifest_leads_no_export_out_of_its_folder(built: Path, tmp_path: Path, split: str) -> None:
    copy = shutil.copytree(built, tmp_path / "copy")
    text = (copy / manifest.MANIFEST).read_text()
    assert ",train," in text
    (copy / manifest.MANIFEST).write_text(text.replace(",train,", f",{split},", 1))
    for form in ("folder", "webdataset"):
        arguments = ["export", str(copy), "--format", form, "--out", str(tmp_path / "a/b/out")]
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 1
        assert "split" in result.output
        assert "none of train, query, gallery" in " ".join(result.output.split())
    assert {path.name for path in tmp_path.rglob("*")} <= {"copy", *(path.name for path in copy.iterdir())}


@hostile
@given(mutation=mutations, which=st.sampled_from(("train_list.txt", "test_3000.txt", "vehicle_info.txt")))
def test_mutated_lists_of_a_source_build_or_are_refused_and_lead_nowhere_else(
    mutation: Mutation, which: str, laid_out: Path, tmp_path: Path
) -> None:
    root = tmp_path / "in"
    if not root.exists():
        shutil.copytree(laid_out / "clear", root)
    (path,) = root.rglob(which)
    content = path.read_bytes()
    path.write_bytes(mutate(content, mutation))
    arguments = ["--src", "veri-wild", "--root", str(root), "--depth", "constant", "--workers", "1"]
    result = CliRunner().invoke(cli, ["build-syn", *arguments, "--out", str(tmp_path / "out")])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    path.write_bytes(content)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"in", "out"}
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
