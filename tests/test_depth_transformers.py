"""Models of transformers, tiny and random, from a local folder."""

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")

from fvrid_tools.depth import open_estimator  # noqa: E402
from fvrid_tools.depth.transformers import log_distance  # noqa: E402
from fvrid_tools.records import FvridError  # noqa: E402


@pytest.fixture(params=["relative", "metric"])
def model(request, tmp_path):
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        out_features=["stage1", "stage2"], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8], fusion_hidden_size=8,
        reassemble_factors=[2, 1], head_hidden_size=4, depth_estimation_type=request.param, max_depth=80,
    )  # fmt: skip
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(tmp_path)
    processor = transformers.DPTImageProcessor(size={"height": 28, "width": 28}, do_resize=True)
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_works_offline(model):
    estimator = open_estimator(f"hf:{model}")
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    found = estimator.predict(image, None)
    assert found.shape == (40, 50)
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1


def test_metres_and_inverse_distances_become_log_distance():
    assert log_distance(np.array([[0.5, 9.0, 100.0]]), "metric").tolist() == [[0.0, 0.5, 1.0]]
    inverse = np.linspace(0, 1, 10001)[None] * 7 - 3  # of any scale and shift, large near
    found = log_distance(inverse, "relative")[0]
    assert found[0] == pytest.approx(np.log(20) / np.log(81))
    assert found[-1] == pytest.approx(np.log(6) / np.log(81))
    middle = 1 / ((1 / 6 + 1 / 20) / 2)
    assert found[5000] == pytest.approx(np.log(middle) / np.log(81), abs=1e-5)


def test_a_model_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(FvridError, match="not to be had"):
        open_estimator(f"hf:{tmp_path}").predict(np.zeros((20, 20, 3), np.uint8), None)
