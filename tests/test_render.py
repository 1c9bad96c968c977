"""fvrid_tools.render: the plan, the meshes, exact distances against our own ray casting, and the fog's physics."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mitsuba")
pytest.importorskip("pyoidn")

from click.testing import CliRunner

from fvrid_tools import images, open_dataset, pictures
from fvrid_tools.cli import cli
from fvrid_tools.files import alone_in
from fvrid_tools.render import bodies, camera, light, plan, run, scene, streets, trace
from fvrid_tools.render.run import quantize_distance
from fvrid_tools.sources import mini, read_source

KINDS = ("sedan", "hatchback", "suv", "van", "pickup", "bus", "truck", "motorcycle")


def fleet(**changes) -> plan.Fleet:
    return plan.Fleet(**{"seed": 3, "vehicles": 20, "views": 8} | changes)


def view_of(fog: tuple = (), **changes) -> plan.View:
    """A view without other vehicles; scenes are then small."""
    return replace(fleet(fog=fog).views_of(0)[0], traffic=(), **changes)


@pytest.fixture(scope="module")
def model() -> scene.Loaded:
    return scene.load_vehicle(fleet().vehicle(0), detail=0.3)


def vehicle(kind: str, seed: int = 0):
    rng = plan.generator("test", kind, seed)
    return plan.draw_vehicle(rng, plan.draw_model(rng, "m", kind))


# --- the plan


def test_a_vehicle_and_its_views_depend_on_nothing_but_seed_and_number():
    assert fleet().vehicle(4) == fleet().vehicle(4)
    assert fleet().vehicle(4) != fleet(seed=4).vehicle(4)
    assert fleet(views=3).views_of(4) == fleet(views=8).views_of(4)[:3]
    assert fleet().vehicle(4) == replace(fleet(), views=2).vehicle(4)


def test_vehicles_share_models_but_no_two_are_alike():
    found = [fleet(vehicles=80).vehicle(i) for i in range(80)]
    models = {v.model.name for v in found}
    assert len(models) <= 80 // plan.MODEL_SHARE
    assert len({v.model for v in found}) == len(models)  # a name is one model
    assert len({(v.paint, v.marks, v.seed) for v in found}) == 80


def test_views_of_a_vehicle_come_from_different_cameras_of_at_least_twelve():
    assert streets.SITES >= 12
    for index in range(5):
        cameras = [view.site.name for view in fleet().views_of(index)]
        assert len(set(cameras)) == 8
    sites = [streets.site(i) for i in range(streets.SITES)]
    assert len({(s.height, s.focal, s.exposure, s.balance) for s in sites}) == streets.SITES


@pytest.mark.parametrize(
    ("vehicles", "fog", "tested"), [(600, (), 100), (550, ("patchy",), 250), (3, (), 1), (1, (), 0)]
)
def test_shares_of_test_vehicles(vehicles, fog, tested):
    assert len(set(fleet(vehicles=vehicles, fog=fog).test_vehicles())) == tested


def test_the_test_takes_whole_models_but_for_the_last():
    population = fleet(vehicles=600)
    tested = set(population.test_vehicles())
    models = {population.model_number(i) for i in tested}
    others = {population.model_number(i) for i in range(600)} - models
    split = [m for m in models if any(population.model_number(i) == m for i in range(600) if i not in tested)]
    assert len(split) <= 1
    assert others


def test_the_two_domains_have_no_vehicle_in_common():
    clear, foggy = fleet(), fleet(fog=("patchy",))
    assert clear.vehicle(4) != foggy.vehicle(4)
    assert clear.views_of(4)[0].vehicle_id != foggy.views_of(4)[0].vehicle_id


def test_vehicles_do_not_stand_in_one_another():
    population = fleet(vehicles=60)
    for index in range(60):
        own = population.vehicle(index).model.whole_length
        for view in population.views_of(index):
            there = [(view.target, own)]
            there += [(other, plan.traffic(other.vehicle).model.whole_length) for other in view.traffic]
            for i, (a, long) in enumerate(there):
                for b, other in there[:i]:
                    assert abs(a.x - b.x) > (long + other) / 2 or abs(a.y - b.y) > 2.5


@pytest.mark.parametrize(("yaw", "seen"), [(np.pi, "front"), (0.0, "rear"), (np.pi / 2, "left"), (-np.pi / 2, "right")])
def test_facing(yaw, seen):
    found = view_of()
    target = replace(found.target, x=20.0, y=found.site.lateral, yaw=yaw)
    assert replace(found, target=target).facing == seen


def test_wide_views_have_cameras_of_their_own_and_every_kind():
    population = fleet(vehicles=24, views=4, wide=True)
    views = [view for i in range(24) for view in population.views_of(i)]
    assert len({view.site.height for view in views}) == len(views)
    assert {population.vehicle(i).model.kind for i in range(24)} == set(KINDS)
    assert max(view.distance for view in views) > 3 * min(view.distance for view in views)
    assert {view.facing for view in views} == {"front", "rear", "left", "right"}
    assert all(1 < view.site.height <= 9 for view in views)
    streets_seen = {view.site.street for view in views}
    assert len(streets_seen) <= streets.SITES  # each is built once


def test_wide_views_ahead_of_the_camera_alone():
    """All of the target is before the camera, or its frame could not be found."""
    population = fleet(vehicles=200, views=2, wide=True)
    for i in range(200):
        for view in population.views_of(i):
            assert view.target.x - population.vehicle(i).model.whole_length / 2 > 3
            for other in view.traffic:
                assert other.x - plan.traffic(other.vehicle).model.whole_length / 2 > 3


# --- vehicles


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_faces_outwards_and_is_as_large_as_its_model(kind):
    found = vehicle(kind)
    body = bodies.build_body(found, detail=0.2)
    for part in body.parts:
        a, b, c = (part.vertices[part.faces[:, i]].astype(float) for i in range(3))
        assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() > 0  # faces look outwards: the volume is positive
        assert np.isfinite(part.vertices).all()
        for layer in (part.texture.colour, part.texture.roughness, part.texture.metallic, part.texture.coat):
            assert layer.min() >= 0
            assert layer.max() <= 1
    corners = np.concatenate([part.vertices for part in body.parts])
    spread = np.ptp(corners, axis=0)
    long = found.model.length + found.model.box[0]
    assert long - 0.2 < spread[0] < long + 0.8
    assert found.model.width - 0.35 < spread[1] < found.model.width + 0.5
    assert -0.02 < corners[:, 2].min() < 0.08  # it stands on the road
    assert {lamp.facing for lamp in body.lamps} == {1, -1}


def test_vehicles_of_one_model_differ_in_their_marks():
    model = vehicle("sedan").model
    textures = []
    for seed in range(4):
        found = plan.draw_vehicle(plan.generator("marks", seed), model)
        textures.append(bodies.build_body(replace(found, paint=(0.3, 0.3, 0.3)), detail=0.3).parts[0].texture.colour)
    differences = [np.abs(a - b).mean() for i, a in enumerate(textures) for b in textures[i + 1 :]]
    assert min(differences) > 0.003


# --- distance


def cast(part, origin, rays):
    """Moeller and Trumbore: the nearest hit of each ray with a part's triangles; inf where there is none."""
    nearest = np.full(len(rays), np.inf)
    a, b, c = (part.vertices[part.faces[:, i]].astype(float) for i in range(3))
    edge1, edge2, away = b - a, c - a, origin - a
    across = np.cross(away, edge1)
    for i, ray in enumerate(rays):
        p = np.cross(ray, edge2)
        det = np.einsum("ij,ij->i", p, edge1)
        det = np.where(np.abs(det) < 1e-12, np.nan, det)
        u = np.einsum("ij,ij->i", away, p) / det
        v = across @ ray / det
        t = np.einsum("ij,ij->i", edge2, across) / det
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        if hit.any():
            nearest[i] = t[hit].min()
    return nearest


@pytest.mark.parametrize("size", [32, 128])
def test_distance_is_that_of_the_rays_through_the_pixels_centres(model, size):
    view = view_of()
    seen = trace.render_view(view, model, size, samples=4)
    origin, axes, focal = scene.camera_of(view)
    left, top, side = scene.window_of(view, model)
    places = range(size // 5, size, size // 6)
    pixels = [(row, column) for row in places for column in places]
    rays = []
    for row, column in pixels:
        x, y = left + (column + 0.5) * side / size, top + (row + 0.5) * side / size
        ray = np.array([x / focal, y / focal, 1.0]) @ axes
        rays.append(ray / np.linalg.norm(ray))
    target = view.target
    placed = [part.placed((target.x, target.y, 0.0), target.yaw) for part in model.body.parts]
    own = np.min([cast(part, origin, rays) for part in placed], axis=0)
    found = np.array([seen.distance[p] for p in pixels])
    hits = np.isfinite(own)
    assert hits.sum() >= 5
    # a ray that meets the vehicle ends there, or on something before it; nearly all of them there
    assert (found[hits] <= own[hits] * 1.0005).all()
    assert np.mean(np.abs(found[hits] / own[hits] - 1) < 2e-4) > 0.8


def test_levels_of_distance():
    found = quantize_distance(np.array([[0.5, 1.0, 9.0, 81.0, np.inf, 3.0]]))
    assert found.tolist() == [[0, 0, 32768, 65535, 65535, 16384]]  # log(9) / log(81) = 1/2, log(3) / log(81) = 1/4


# --- fog


def test_extinction_is_koschmieders():
    fog = light.Fog(kind="homogeneous", visibility=60.0)
    assert np.exp(-fog.extinction * 60.0) == pytest.approx(0.05, abs=5e-4)


def test_transmittance_of_homogeneous_fog():
    view = view_of(fog=("homogeneous",))
    distance = np.array([[10.0, 20.0], [0.0, np.inf]])
    found = trace.transmittance(view.fog, view, distance, (0.0, 0.0, 0.1))
    sigma = 3.0 / view.fog.visibility
    assert found == pytest.approx(np.exp([[-10 * sigma, -20 * sigma], [0.0, -np.inf]]))


def test_patches_have_the_mean_density_of_the_fog():
    found = light.density(5)
    assert found.mean() == pytest.approx(1.0, abs=1e-5)
    assert found.min() > 0
    assert found.std() > 0.2


@pytest.mark.parametrize("kind", ["homogeneous", "patchy"])
def test_fog_that_only_absorbs_is_transmittance_times_surface(model, kind):
    view = view_of(fog=(kind,), lamps=False)
    view = replace(view, fog=replace(view.fog, albedo=0.0, visibility=90.0))
    size = 64  # a pixel much smaller mixes no distances
    again = replace(view, seed=view.seed + 1)
    whole = [trace.render_reference(v, model, size, 64).mean(axis=2) for v in (view, again)]
    surface = [trace.render_reference(v, model, size, 16, through_fog=False).mean(axis=2) for v in (view, again)]
    through = trace.mean_transmittance(view, model, size)
    assert 0.2 < through.mean() < 0.9
    difference = np.mean(whole, axis=0) - through * np.mean(surface, axis=0)
    noise = np.hypot((whole[0] - whole[1]).std(), (through * (surface[0] - surface[1])).std()) / 2
    assert difference.std() < 1.15 * noise
    assert abs(difference.mean()) < 4 * noise / size + 0.005 * np.mean(whole)  # Mitsuba leaves out the first 5 cm
    coarse = [x.reshape(16, 4, 16, 4).mean(axis=(1, 3)).ravel() for x in (np.mean(whole, axis=0), through * surface[0])]
    assert np.corrcoef(coarse)[0, 1] > 0.9


def test_what_is_separated_and_smoothed_adds_up_to_what_is_traced(model):
    view = view_of(fog=("homogeneous",), lamps=False)
    plain = trace.render_reference(view, model, 16, 1024)
    seen = trace.render_view(view, model, 64, samples=8).radiance.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert float(seen.mean()) == pytest.approx(float(plain.mean()), rel=0.03)
    assert np.sqrt(np.mean((seen - plain) ** 2)) < 0.1 * plain.mean()


def test_inscatter_of_a_known_field_is_found_again_in_noise():
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 64), indexing="ij")
    through = np.exp(-0.8 - 0.3 * y - 0.3 * (x > 0.2))[..., None]  # an edge in depth
    truth = (0.8 + 0.1 * x)[..., None] * (1 - through) * np.array([1.0, 0.9, 0.8])
    coarse = truth.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    found = trace._inscatter(coarse + rng.normal(0, 0.05, coarse.shape), through)
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.012  # of noise 0.05


# --- the camera


def test_camera_noise_has_the_variance_it_says():
    place = streets.site(0)
    raw = np.full((64, 64, 3), 0.5)
    for native, share in ((64, 1.0), (640, 0.75)):
        noisy = camera.add_noise(raw, place, native, np.random.default_rng(1))
        variance = (camera.SHOT_NOISE * 0.5 + place.noise**2) * share**2
        assert np.var(noisy - raw) == pytest.approx(variance, rel=0.05)


def test_a_foggy_view_and_its_clear_counterpart_are_two_photographs():
    view = view_of(fog=("homogeneous",))
    grey = np.full((64, 64, 3), 0.3, np.float32)
    foggy, clear = (camera.develop(grey, v, 300.0).astype(float) for v in (view, view.without_fog()))
    foggy, clear = (shown - shown.mean(axis=(0, 1)) for shown in (foggy, clear))
    assert abs(np.corrcoef(foggy.ravel(), clear.ravel())[0, 1]) < 0.05


def test_levels_of_grey():
    place = replace(streets.site(0), noise=0.0)
    plain = replace(place, contrast=1.0)
    assert camera.show(np.ones((2, 2, 3)), plain) == pytest.approx(255)
    assert camera.show(np.zeros((2, 2, 3)), plain) == pytest.approx(0)
    assert camera.show(np.full((2, 2, 3), 0.5), plain) == pytest.approx(255 * 0.5 ** (1 / 2.2))


def test_the_sun_stands_high_at_noon_and_low_at_dusk():
    noon, dusk = (light.Light(hour=hour, clouds=0.0, seed=1) for hour in (12.5, 18.8))
    assert noon.elevation > 4 * max(dusk.elevation, 0.01)
    assert dusk.dusk
    assert not noon.dusk
    assert noon.sky().mean() > 3 * dusk.sky().mean()


# --- the whole


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("render")
    clear = ["render", "--out", str(root / "clear"), "--vehicles", "2", "--views", "2", "--seed", "3"]
    fog = ["render", "--out", str(root / "fog"), "--vehicles", "2", "--views", "1", "--fog", "mixed", "--pairs", "1"]
    counterparts = ["render", "--out", str(root / "counterparts"), *fog[3:-2], "--counterparts"]
    for command in (clear, fog, counterparts):
        small = [*command, "--size", "32", "--samples", "4", "--workers", "1"]
        done = CliRunner().invoke(cli, small)
        assert done.exit_code == 0, done.output
    return root


def test_a_render_is_a_source(rendered, tmp_path):
    for command, root in (("build-syn", "clear"), ("build-real", "fog")):
        out = tmp_path / root
        options = [command, "--src", "mini", "--root", str(rendered / root), "--out", str(out), "--workers", "1"]
        done = CliRunner().invoke(cli, options)
        assert done.exit_code == 0, done.output
    data = open_dataset(tmp_path / "clear")
    assert len(data) == 4
    assert data.info["depth"] == "source"
    assert data[0].clear.shape == (32, 32, 3)
    assert 0.3 < data[0].depth.mean() <= 1.0
    assert len(open_dataset(tmp_path / "fog")) == 2


def test_pairs_have_a_clear_counterpart_and_depth(rendered):
    foggy = sorted((rendered / "fog" / "images").rglob("*.jpg"))
    pairs = sorted((rendered / "fog" / "clear").rglob("*.jpg"))
    assert len(foggy) == 2
    assert len(pairs) == 1
    one = images.decode((rendered / "fog" / "images" / pairs[0].relative_to(rendered / "fog/clear")).read_bytes())
    other = images.decode(pairs[0].read_bytes())
    assert one.std() < other.std()  # fog takes contrast
    depth = sorted((rendered / "fog" / "depth").rglob("*.png"))
    assert [path.stem for path in depth] == [path.stem for path in pairs]
    assert 0.4 < images.decode_depth(depth[0].read_bytes()).mean() < 1


def test_counterparts_are_the_clear_images_of_pairs_for_every_view(rendered):
    root = rendered / "counterparts"
    names = [sorted(path.relative_to(of) for path in of.rglob("*.jpg")) for of in (root, rendered / "fog")]
    assert [name for name in names[1] if name.parts[0] == "images"] == names[0]
    (pair,) = sorted((rendered / "fog" / "clear").rglob("*.jpg"))
    for kind, path in (("images", pair), ("depth", pair.with_suffix(".png"))):
        name = path.relative_to(rendered / "fog" / "clear")
        ours = (root / kind / name).read_bytes()
        assert ours == (rendered / "fog" / ("depth" if kind == "depth" else "clear") / name).read_bytes()
    assert all(view.cells["fog"] == view.cells["pair"].strip("0") == "" for view in mini.find_views(root, "clear"))


@pytest.mark.slow
def test_a_stopped_render_goes_on_and_gives_the_same_bytes(rendered):
    paths = sorted(path for path in (rendered / "clear").rglob("*.*") if path.is_file())
    before = {path: path.read_bytes() for path in paths}
    pictures_ = [path for path in paths if path.suffix in (".jpg", ".png")]
    for path in (pictures_[0], pictures_[-1], pictures_[3]):  # depth as well as images
        path.unlink()
    (rendered / "clear" / "images" / "cut.jpg.0123abcd.part").write_bytes(b"half")
    again = ["render", "--out", str(rendered / "clear"), "--vehicles", "2", "--views", "2", "--seed", "3"]
    done = CliRunner().invoke(cli, [*again, "--size", "32", "--samples", "4", "--workers", "2"])
    assert done.exit_code == 0, done.output
    assert {path: path.read_bytes() for path in paths} == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", "33"], "multiple of 4"),
        (["--pairs", "2"], "name a --fog"),
        (["--vehicles", "0"], "--vehicles"),
        (["--counterparts"], "are clear already"),
        (["--counterparts", "--fog", "mixed", "--pairs", "1"], "leave --pairs out"),
        (["--vehicles", "4", "--fog", "mixed", "--pairs", "40"], "ask for fewer"),
    ],
)
def test_bad_options_are_a_sentence(tmp_path, options, sentence):
    done = CliRunner().invoke(cli, ["render", "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 2
    assert sentence in done.output


def test_another_render_in_the_folder_is_refused(rendered):
    done = CliRunner().invoke(cli, ["render", "--out", str(rendered / "clear"), "--vehicles", "5"])
    assert done.exit_code == 1
    assert "another recipe" in done.output
    with alone_in(rendered / "clear"):
        done = CliRunner().invoke(cli, ["render", "--out", str(rendered / "clear"), "--vehicles", "5"])
    assert "another process is at work here" in done.output


@pytest.mark.slow
@pytest.mark.parametrize("part", ["clear", "real"])
def test_the_embedded_dataset_can_be_rendered_again(part, tmp_path):
    """The same bytes on the machine that made it; on others the last bits of floats may differ."""
    index = json.loads((mini.EMBEDDED / mini.INDEX).read_text())["recipe"][part]
    population = plan.Fleet(
        **{name: index[name] for name in ("seed", "vehicles", "views", "pairs")}, fog=tuple(index["fog"])
    )
    recipe = run.Recipe(fleet=population, size=index["size"], samples=index["samples"])
    task = run.VehicleTask(tmp_path, recipe, 1, alone=True)
    task.make(lambda count: None)
    packed = {record.image_id: record for record in read_source("mini", part=part).records}
    paths = sorted((tmp_path / "images").rglob("*.jpg"))
    assert len(paths) == population.views
    for path in paths:
        stored = pictures.read_image(packed[f"mini/{path.parent.name}/{path.stem}"])
        again = images.decode(path.read_bytes()).astype(float)
        assert np.abs(again - images.decode(stored)).mean() < 2
