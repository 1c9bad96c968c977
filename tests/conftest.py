"""Small datasets of FVRID-Mini's images, built once a session; tests that change one work on a copy."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub is imported: no test waits for a network
# bytes are compared, which a GPU does not promise; CUDA_VISIBLE_DEVICES=0 make test shows what else one breaks
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import hypothesis
import mini_layouts

from fvrid_tools import build, sources
from fvrid_tools.depth import open_estimator
from fvrid_tools.fog import PRESETS
from fvrid_tools.split import write_split

hypothesis.settings.register_profile("fvrid", deadline=None, derandomize=True)  # a busy machine is no failure
hypothesis.settings.load_profile("fvrid")

REAL_IMAGES = Path(__file__).parents[2] / "shared/data/two-camera-vehicles"
VEHICLES, VIEWS = 12, 4


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clear/ in VERI-Wild's layout and foggy/ as folders: 12 vehicles with 4 views each."""
    root = tmp_path_factory.mktemp("laid-out")
    mini_layouts.write_clear(root / "clear", VEHICLES, VIEWS)
    mini_layouts.write_foggy(root / "foggy", VEHICLES, VIEWS)
    return root


@pytest.fixture(scope="session")
def recipe() -> build.Recipe:
    return build.Recipe(depth=open_estimator("planar"), fog=PRESETS["paper"])


@pytest.fixture(scope="session")
def built(laid_out: Path, recipe: build.Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic dataset, split. Not to be changed."""
    out = tmp_path_factory.mktemp("built") / "syn"
    build.build([sources.read_source("veri-wild", laid_out / "clear")], out, recipe)
    write_split(out, seed=0)
    return out


@pytest.fixture(scope="session")
def built_real(laid_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real dataset, split. Not to be changed."""
    out = tmp_path_factory.mktemp("built-real") / "real"
    pattern = r"(?P<vehicle_id>\d+)/c(?P<camera_id>\d+)"
    build.build([sources.read_source("folder", laid_out / "foggy", pattern)], out, build.Recipe())
    write_split(out, seed=0)
    return out


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A copy of `built` to injure."""
    return Path(shutil.copytree(built, tmp_path / "copy"))


@pytest.fixture
def real_images() -> Path:
    """Real photographs in VERI-Wild's layout, where they lie beside the checkout."""
    if not REAL_IMAGES.is_dir():
        pytest.skip("the folder of real images is not beside this checkout")
    return REAL_IMAGES


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser that pages are tested in."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium here")
    return path
