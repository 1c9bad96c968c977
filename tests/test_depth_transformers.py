"""Models of transformers, tiny and random, from a local folder."""

import shutil

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from fvrid_tools.depth import open_estimator  # noqa: E402
from fvrid_tools.depth.transformers import TransformersDepth, log_distance  # noqa: E402
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
    return request.param, tmp_path


def test_a_folder_works_offline(model):
    kind, folder = model
    estimator = open_estimator(f"hf:{folder}")
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    found = estimator.predict(image, None)
    assert found.dtype == np.float32
    net = transformers.AutoModelForDepthEstimation.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        raw = net(**processor(images=image, return_tensors="pt")).predicted_depth
        full = torch.nn.functional.interpolate(raw[None], (40, 50), mode="bicubic", align_corners=False)[0, 0]
    assert np.allclose(found, log_distance(full.numpy(), kind), atol=1e-5)
    assert estimator.versions["device"] == "cpu"
    other = folder / "other"
    with torch.no_grad():
        next(net.parameters()).add_(1)
    net.save_pretrained(other)
    processor.save_pretrained(other)
    shutil.copytree(folder / "other", folder / "other/.cache")  # as a download leaves it
    versions = TransformersDepth(str(other)).versions
    assert versions["weights"] != estimator.versions["weights"]
    assert versions == TransformersDepth(str(other / ".cache")).versions


def test_what_a_models_own_processor_makes_of_its_output_is_taken(monkeypatch):
    """Depth Pro's output is inverse, ZoeDepth's has a border; only their processors know."""

    class Processor:
        def __call__(self, images, return_tensors):
            return transformers.BatchFeature({"pixel_values": torch.zeros(1)})

        def post_process_depth_estimation(self, outputs, source_sizes=None, target_sizes=None):
            assert source_sizes == target_sizes == [(40, 50)]
            return [{"predicted_depth": 1 / outputs.expand(40, 50)}]

    class Net:
        device = torch.device("cpu")

        def __call__(self, pixel_values):
            return torch.tensor(1 / 9)

    monkeypatch.setattr("fvrid_tools.depth.transformers._load", lambda model: (Processor(), Net(), "metric"))
    found = TransformersDepth("any").predict(np.zeros((40, 50, 3), np.uint8), None)
    assert np.allclose(found, 0.5)  # 9 m of 81


def test_metres_and_inverse_distances_become_log_distance():
    assert log_distance(np.array([[0.5, 9.0, 100.0]]), "metric").tolist() == [[0.0, 0.5, 1.0]]
    inverse = np.linspace(0, 1, 10001)[None] * 7 - 3  # of any scale and shift, large near
    found = log_distance(inverse, "relative")[0]
    assert found[0] == pytest.approx(np.log(20) / np.log(81))
    assert found[-1] == pytest.approx(np.log(6) / np.log(81))
    middle = 1 / ((1 / 6 + 1 / 20) / 2)
    assert found[5000] == pytest.approx(np.log(middle) / np.log(81), abs=1e-5)


def test_a_model_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(FvridError, match="cannot be loaded"):
        open_estimator(f"hf:{tmp_path}").predict(np.zeros((20, 20, 3), np.uint8), None)
