"""Is the rendered fog right? Path tracing against what is known, and our estimate of it against path tracing.

absorbing    Scattering albedo 0, no lamps: Mitsuba's image must be I = J t (airlight 0), J being the surfaces without
             fog before them and t from distance and density. The difference is compared with the noise of the two,
             and the mean of it, which averages the noise away, with its standard error.
estimate     Scattering on: `render_view`, which separates and denoises, against Mitsuba's own image of many samples.
noise        Two renders that differ in nothing but their random paths, in grey levels of the developed image,
             against the noise that the camera adds.

Needs the extra `render`. Radiances are relative; a difference is root mean square over mean radiance.
Exit code 1 where absorbing fog differs from I = J t by more than noise, or the render is noisier than the camera.
"""

import sys
from dataclasses import replace

import numpy as np
from harness import finish, options

from fvrid_tools.render import camera, plan
from fvrid_tools.render.scene import load_vehicle
from fvrid_tools.render.trace import mean_transmittance, render_reference, render_view

SIZE, SAMPLES = 128, 196  # of absorbing fog: at the size of the dataset, since a pixel mixes distances
COARSE, COARSE_SAMPLES = 64, 1024  # of scattering fog, whose paths are slower
MINI_SAMPLES = 12
NEAR = 0.005  # what the fog up to the near plane, which Mitsuba leaves out, holds back: 5 cm of at most 0.1 / m


def rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def absorbing(view: plan.View, model) -> dict[str, float]:
    view = replace(view, fog=replace(view.fog, albedo=0.0))
    again = replace(view, seed=view.seed + 1)
    first, second = (render_reference(v, model, SIZE, SAMPLES) for v in (view, again))
    surface = [render_reference(v, model, SIZE, SAMPLES, through_fog=False) for v in (view, again)]
    through = mean_transmittance(view, model, SIZE)[..., None]
    product = [through * s for s in surface]
    mean = float(first.mean())
    noise = np.hypot(*(rms((a - b).mean(axis=2)) for a, b in ((first, second), product))) / 2
    left = ((first + second) / 2 - (product[0] + product[1]) / 2).mean(axis=2)
    return {
        "difference": round(rms(left) / mean, 4),
        "noise": round(float(noise) / mean, 4),
        "bias": round(float(left.mean()) / mean, 5),
        "bias_standard_error": round(float(left.std()) / left.shape[0] / mean, 5),
        "mean_transmittance": round(float(through.mean()), 3),
    }


def estimate(view: plan.View, model) -> dict[str, float]:
    plain = render_reference(view, model, COARSE, COARSE_SAMPLES)
    other = render_reference(replace(view, seed=view.seed + 1), model, COARSE, COARSE_SAMPLES)
    seen = render_view(view, model, 128, MINI_SAMPLES).radiance
    seen = seen.reshape(COARSE, 128 // COARSE, COARSE, 128 // COARSE, 3).mean(axis=(1, 3))
    mean = float(plain.mean())
    return {
        "difference": round(rms(seen - (plain + other) / 2) / mean, 4),
        "noise_of_plain": round(rms(plain - other) / 2 / mean, 4),
        "bias": round(float(np.mean(seen - (plain + other) / 2)) / mean, 5),
    }


def noise(view: plan.View, model) -> dict[str, float]:
    quiet = replace(view.site, noise=0.0)
    one, two = (render_view(v, model, 128, MINI_SAMPLES) for v in (view, replace(view, seed=view.seed + 1)))
    pictures = [camera.expose(s.radiance, quiet, view.light, s.native) for s in (one, two)]
    shown = [camera.show(p, quiet).astype(np.float64) for p in pictures]
    noisy = camera.add_noise(pictures[0], view.site, one.native, np.random.default_rng(view.seed))
    noisy = camera.show(noisy, view.site)
    difference = np.abs(shown[0] - shown[1]) / np.sqrt(2)
    return {
        "render_rms": round(rms(difference), 2),
        "render_median": round(float(np.median(difference)) / 0.6745, 2),  # as a standard deviation
        "camera_rms": round(rms(noisy - shown[0]), 2),
    }


def failures(results: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    found = []
    for name, parts in results.items():
        dark = parts["absorbing"]
        if dark["difference"] > 1.1 * dark["noise"] or abs(dark["bias"]) > 3 * dark["bias_standard_error"] + NEAR:
            found.append(f"{name}: absorbing fog is not I = J t")
        for weather in ("noise_in_fog", "noise_clear"):
            if parts[weather]["render_rms"] >= parts[weather]["camera_rms"]:
                found.append(f"{name}: {weather}: the render is noisier than the camera")
    return found


def main() -> None:
    arguments = options(__doc__, images=False, rounds=2)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for index in range(arguments.rounds):
        for kind in ("homogeneous", "patchy"):
            fleet = plan.Fleet(seed=2, vehicles=550, views=1, fog=(kind,))
            model = load_vehicle(fleet.vehicle(index))
            lit = fleet.views_of(index)[0]
            view = replace(lit, lamps=False, light=replace(lit.light, hour=min(lit.light.hour, 17.0)))
            name = f"{view.image_id} {kind} {view.fog.visibility:.0f} m"
            results[name] = {
                "absorbing": absorbing(view, model),
                "estimate": estimate(view, model),
                "noise_in_fog": noise(replace(lit, lamps=True), model),
                "noise_clear": noise(view.without_fog(), model),
            }
            print(name, results[name], file=sys.stderr)
    finish(arguments, results, failures(results))


if __name__ == "__main__":
    main()
