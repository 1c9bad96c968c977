"""Files of the original's structure, of both .mat versions, written here."""

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.io import savemat

from fvrid_tools.cli import cli
from fvrid_tools.depth.dcnf import matconvnet
from fvrid_tools.records import FvridError


def layers(rng):
    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    ones, uneven, skewed = np.ones((1, 4)), np.array([[1.0, 0.0, 1.0, 0.0]]), np.array([[1.0, 2.0]])
    return [
        {"type": "conv", "filters": normal(3, 3, 3, 4), "biases": normal(1, 4), "pad": ones, "stride": ones[:, :2]},
        {"type": "relu"},
        {"type": "pool", "pool": 2 * ones[:, :2], "pad": ones, "stride": 2 * ones[:, :2], "method": "max"},
        {"type": "conv", "filters": normal(3, 2, 4, 5), "biases": normal(1, 5), "pad": uneven, "stride": skewed},
        {"type": "custom"},
        {"type": "conv", "filters": normal(1, 1, 5, 6), "biases": normal(1, 6), "pad": 0.0, "stride": 1.0},
        {"type": "logistic"},
        {"type": "conv", "filters": normal(1, 1, 6), "biases": normal(1, 1), "pad": 0.0, "stride": 1.0},
        {"type": "structured_loss", "struct_model_w": np.array([[0.5, 0.0, 1.5]])},
    ]  # fmt: skip


def model(found):
    norm = {"max_d": 1.9, "min_d": 0.1, "norm_type": 3.0}
    return {"net": {"layers": found}, "image_norm_info": 128.0, "label_norm_info": norm}


def write_5(path, found):
    cells = np.empty((1, len(found)), object)
    cells[0] = found
    savemat(path, {"data_obj": model(cells)})


def write_73(path, found):
    """As MATLAB's HDF5: arrays reversed, trailing ones dropped, strings of uint16, cells of references."""
    with h5py.File(path, "w", userblock_size=512) as file:

        def put(group, name, value):
            if isinstance(value, dict):
                inner = group.create_group(name)
                for key, item in value.items():
                    put(inner, key, item)
            elif isinstance(value, list):
                references = []
                for i, item in enumerate(value):
                    put(file, f"#refs#/{i}", item)
                    references.append(file[f"#refs#/{i}"].ref)
                group.create_dataset(name, data=np.array(references, dtype=h5py.ref_dtype)[:, None])
            elif isinstance(value, str):
                group.create_dataset(name, data=np.array([[ord(c)] for c in value], np.uint16))
            else:
                group.create_dataset(name, data=np.atleast_2d(value).T)

        put(file, "data_obj", model(found))


@pytest.mark.parametrize("write", [write_5, write_73])
def test_layers_do_what_they_say(write, tmp_path):
    found = layers(np.random.default_rng(0))
    write(tmp_path / "model.mat", found)
    read = matconvnet.load(tmp_path / "model.mat")
    image = np.random.default_rng(1).normal(size=(7, 9, 3))
    x = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))

    def correlate(x, filters, biases, pad, stride):  # by loops, as MatConvNet's documentation has it
        top, bottom, left, right = pad
        x = np.pad(x, ((top, bottom), (left, right), (0, 0)))
        h, w, _, count = filters.shape
        rows, columns = (x.shape[0] - h) // stride[0] + 1, (x.shape[1] - w) // stride[1] + 1
        out = np.empty((rows, columns, count))
        for r in range(rows):
            for c in range(columns):
                patch = x[r * stride[0] : r * stride[0] + h, c * stride[1] : c * stride[1] + w]
                out[r, c] = np.tensordot(patch, filters, 3) + biases.ravel()
        return out

    expected = np.maximum(correlate(image, found[0]["filters"], found[0]["biases"], (1, 1, 1, 1), (1, 1)), 0)
    padded = np.pad(expected, ((1, 1), (1, 1), (0, 0)))
    rows, columns = (padded.shape[0] - 2) // 2 + 1, (padded.shape[1] - 2) // 2 + 1
    cells = [[padded[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].max((0, 1)) for c in range(columns)] for r in range(rows)]
    expected = np.array(cells)
    expected = correlate(expected, found[3]["filters"], found[3]["biases"], (1, 0, 1, 0), (1, 2))
    features = matconvnet.run(read.trunk, x)[0].permute(1, 2, 0).numpy()
    assert features == pytest.approx(expected, abs=1e-4)

    pooled = expected.reshape(-1, 5)[:4]
    hidden = 1 / (1 + np.exp(-(pooled @ found[5]["filters"][0, 0] + found[5]["biases"])))
    z = hidden @ found[7]["filters"][0, 0] + found[7]["biases"][0, 0]
    made = matconvnet.run(read.head, torch.from_numpy(pooled.T[None, :, :, None].astype(np.float32)))
    assert made.numpy().ravel() == pytest.approx(z, abs=1e-4)
    assert read.betas.tolist() == [0.5, 0.0, 1.5]
    assert read.mean == 128
    assert read.metres(np.array([0.0, 0.5, 1.0, 2.0])) == pytest.approx(10.0 ** np.array([0.1, 1.0, 1.9, 1.9]))


@pytest.mark.parametrize("write", [write_5, write_73])
def test_a_layer_that_is_not_understood_is_named(write, tmp_path):
    found = layers(np.random.default_rng(0))
    found[6] = {"type": "lrn"}
    write(tmp_path / "model.mat", found)
    with pytest.raises(FvridError, match=r"model\.mat: layer 7 is of the type 'lrn'"):
        matconvnet.load(tmp_path / "model.mat")


def test_files_that_are_no_model(tmp_path):
    with pytest.raises(FvridError, match="no such file"):
        matconvnet.load(tmp_path / "none.mat")
    (tmp_path / "text.mat").write_text("hello")
    with pytest.raises(FvridError, match=r"text\.mat: not a DCNF model"):
        matconvnet.load(tmp_path / "text.mat")
    for content in ({"x": 1.0}, {"data_obj": {"net": {"layers": 3.0}, "label_norm_info": 1.0, "image_norm_info": 1.0}}):
        savemat(tmp_path / "other.mat", content)
        with pytest.raises(FvridError, match=r"other\.mat: not a DCNF model"):
            matconvnet.load(tmp_path / "other.mat")


def test_a_bad_file_leaves_nothing_behind(tmp_path, laid_out):
    """So that the command, mended, finds its folder free."""
    source = ["build-syn", "--src", "veri-wild", "--root", str(laid_out / "clear"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, [*source, "--depth", f"dcnf-mat:{tmp_path / 'none.mat'}"])
    assert done.exit_code == 1
    assert "no such file" in done.output
    assert not (tmp_path / "out").exists()


def test_the_whole_model_gives_depth(tmp_path):
    from fvrid_tools.depth.dcnf.estimator import OriginalDCNF

    write_5(tmp_path / "model.mat", layers(np.random.default_rng(0)))
    image = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for how in ("levin", "guided", "none"):
        found = OriginalDCNF(tmp_path / "model.mat", how).predict(image, None)
        assert found.shape == (48, 64)
        assert found.dtype == np.float32
        # labels are log10 of 1.26 to 79 m
        assert np.log(10**0.1) / np.log(81) - 0.02 <= found.min() <= found.max() <= np.log(10**1.9) / np.log(81) + 0.02
