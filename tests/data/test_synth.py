"""Generated data: physical, deterministic, in the release's units, shifted between domains, and not trivial."""

from pathlib import Path

import numpy as np
import pytest
import typer
from scipy.ndimage import label
from typer.testing import CliRunner

from l4s.cli import synth as command
from l4s.data.bands import Bands
from l4s.data.landcover import MATERIALS, draw_cover
from l4s.data.readers import find_patches, read_image, read_mask
from l4s.data.runout import Runouts, depth, draw_mask
from l4s.data.spectra import IMG_MEAN, endmembers
from l4s.data.synth import SynthDomain, draw_domain, make_patch, write_dataset, write_domain
from l4s.data.terrain import drained_area, make_terrain, power_field, slope_degrees, sunlight
from l4s.errors import DataError, L4SError, RecipeError

SLOPE, DEM = 12, 13
# Per band of six of the release's training images, in its units: lowest and highest mean of an image. b10 of an image
# with cirrus, 15.7, is left out.
REAL_LOW = [0.75, 0.79, 0.82, 0.79, 1.02, 0.89, 0.81, 0.84, 1.36, 1.24, 0.95, 0.98, 1.19, 0.89]
REAL_HIGH = [1.11, 1.16, 1.25, 1.39, 1.47, 1.23, 1.16, 1.16, 2.48, 1.61, 1.41, 1.51, 1.77, 3.67]


def patches(domain: SynthDomain) -> tuple[np.ndarray, np.ndarray]:
    made = [make_patch(domain, index) for index in range(domain.patches)]
    return np.stack([image for image, _ in made]), np.stack([mask for _, mask in made])


@pytest.fixture(scope="module")
def source() -> tuple[np.ndarray, np.ndarray]:
    return patches(SynthDomain(seed=0, patches=50))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [16, 33, 48, 96, 128])
def test_a_patch_has_any_size_and_the_formats_types(size: int) -> None:
    image, mask = make_patch(SynthDomain(size=size, empty=0.0), 3)
    assert image.shape == (size, size, 14) and image.dtype == np.float64
    assert mask.shape == (size, size) and mask.dtype == np.uint8
    assert np.isfinite(image).all() and set(np.unique(mask)) <= {0, 1}


def test_a_patch_depends_on_seed_and_index_alone() -> None:
    one, same = make_patch(SynthDomain(size=48, patches=2), 5), make_patch(SynthDomain(size=48, patches=9), 5)
    assert one[0].tobytes() == same[0].tobytes() and one[1].tobytes() == same[1].tobytes()
    assert not np.array_equal(one[0], make_patch(SynthDomain(size=48), 6)[0])
    assert not np.array_equal(one[0], make_patch(SynthDomain(size=48, seed=1), 5)[0])


def test_units_are_those_of_the_release(source: tuple[np.ndarray, np.ndarray]) -> None:
    mean = source[0].mean((0, 1, 2))
    assert (mean > 0.7 * np.array(REAL_LOW)).all() and (mean < 1.3 * np.array(REAL_HIGH)).all(), mean
    raw = source[0][..., :12] * IMG_MEAN[:12]
    assert np.abs(raw - np.rint(raw)).max() < 1e-6 and raw.min() >= 1  # digital numbers
    assert (source[0][..., SLOPE] * IMG_MEAN[SLOPE] < 90).all()


def test_slope_is_the_gradient_of_the_dem(source: tuple[np.ndarray, np.ndarray]) -> None:
    for image in source[0][:5] * IMG_MEAN:
        down, right = np.gradient(image[..., DEM], 10.0)
        expected = np.rad2deg(np.arctan(np.sqrt(down**2 + right**2)))
        np.testing.assert_allclose(image[..., SLOPE], expected, atol=1e-6)


def test_slides_are_rare_and_often_absent(source: tuple[np.ndarray, np.ndarray]) -> None:
    masks = source[1]
    assert 0.01 <= masks.mean() <= 0.04
    assert 0.2 <= (masks.sum((1, 2)) == 0).mean() <= 0.7


def test_slides_lie_on_steep_ground_and_run_downhill() -> None:
    images, masks = patches(SynthDomain(seed=3, patches=12, empty=0.0, size=96))
    slope, dem = images[..., SLOPE], images[..., DEM] * IMG_MEAN[DEM]
    assert slope[masks == 1].mean() > 1.1 * slope.mean()
    falls = []
    for mask, ground in zip(masks, dem, strict=True):
        parts, count = label(mask, np.ones((3, 3)))
        falls += [np.ptp(ground[parts == k]) for k in range(1, count + 1) if (parts == k).sum() >= 30]
    assert np.median(falls) > 30.0  # metres, over a length of 10 to 20 pixels


def test_distractors_look_like_slides_but_lie_elsewhere(source: tuple[np.ndarray, np.ndarray]) -> None:
    """Most bright bare pixels are no slides, and b4 does not separate the two."""
    images, masks = source
    bare = (images[..., 7] * IMG_MEAN[7]) < 2.0 * images[..., 3] * IMG_MEAN[3]
    assert masks[bare].mean() < 0.7
    red = images[..., 3]
    spread = red[bare & (masks == 1)].std() + red[bare & (masks == 0)].std()
    assert abs(red[bare & (masks == 1)].mean() - red[bare & (masks == 0)].mean()) < spread
    slope = images[..., SLOPE]
    assert slope[bare & (masks == 1)].mean() > 1.2 * slope[bare & (masks == 0)].mean()


def shift(one: np.ndarray, strength: float, number: int) -> np.ndarray:
    """Distance of a target's mean from the source's, per spectral band, in the source's standard deviations."""
    two, _ = patches(draw_domain(number, strength, patches=20, size=64, clouds=0.0))
    distance: np.ndarray = np.abs(two.mean((0, 1, 2)) - one.mean((0, 1, 2))) / one.std((0, 1, 2))
    return distance[:12]


@pytest.mark.parametrize("number", [2, 3, 4])
def test_strength_shifts_domains(number: int, source: tuple[np.ndarray, np.ndarray]) -> None:
    far, near = shift(source[0], 1.0, number), shift(source[0], 0.0, number)
    assert far.mean() > 0.5 and near.mean() < 0.25 and far.mean() > 3 * near.mean(), (far, near)


def test_the_shift_is_mostly_affine() -> None:
    """The same ground under another gain and offset: a line through the values of each band explains them."""
    one = SynthDomain(size=64, seed=1)
    far = draw_domain(1, 1.0)
    two = one.model_copy(update={"gain": far.gain, "offset": far.offset})
    before, after = make_patch(one, 0)[0], make_patch(two, 0)[0]
    for band in range(12):
        if band != 9:  # b10 is a handful of digital numbers
            assert np.corrcoef(before[..., band].ravel(), after[..., band].ravel())[0, 1] > 0.99
    np.testing.assert_array_equal(before[..., 12:], after[..., 12:])
    gain = np.polyfit(before[..., 7].ravel(), after[..., 7].ravel(), 1)[0]
    assert gain == pytest.approx(far.gain[7], rel=0.02)


def test_the_sensor_shifts_gain_and_offset_alone() -> None:
    plain, sensed = draw_domain(4, 0.5), draw_domain(4, 0.5, 1.5)
    differ = {name for name in type(plain).model_fields if getattr(plain, name) != getattr(sensed, name)}
    assert differ == {"gain", "offset"}
    assert (sensed.gain, sensed.offset) == (draw_domain(4, 1.5).gain, draw_domain(4, 1.5).offset)
    with pytest.raises(RecipeError, match="sensor = 3"):
        draw_domain(0, 1.0, 3.0)


def test_strength_nought_is_the_default_domain() -> None:
    assert draw_domain(4, 0.0) == SynthDomain(seed=4)
    with pytest.raises(RecipeError, match="strength = 3"):
        draw_domain(0, 3.0)


@pytest.mark.parametrize("seed", range(8))
def test_the_strongest_shift_keeps_every_band_alive(seed: int) -> None:
    image, _ = make_patch(draw_domain(seed, 2.0, size=64), 0)
    dead = ((image * IMG_MEAN)[..., :12] <= 1.0).mean((0, 1))
    assert (np.delete(dead, 9) < 0.05).all()
    assert (image.std((0, 1)) > 0).all()


def test_label_noise_changes_masks_and_not_images() -> None:
    clean = SynthDomain(seed=2, patches=12, size=64, empty=0.0)
    images, masks = patches(clean)
    noisy_images, noisy = patches(clean.model_copy(update={"label_noise": 0.5}))
    np.testing.assert_array_equal(images, noisy_images)
    assert 0.2 * masks.sum() < noisy.sum() < 0.8 * masks.sum()
    assert (noisy & ~masks & 1).any()  # a shifted mask lies where no slide is


def test_full_label_noise_leaves_nothing() -> None:
    runouts = Runouts(np.array([[8.0, 8.0], [8.0, 9.0]]), np.array([2.0, 2.0]), np.array([0, 1]))
    flat = np.zeros((16, 16))
    assert draw_mask(np.random.default_rng(0), runouts, flat, 1.0).sum() == 0
    # Pixels are positive where their centre lies inside a disc.
    row, column = np.mgrid[:16, :16]
    inside = (np.hypot(row - 8, column - 8) <= 2) | (np.hypot(row - 8, column - 9) <= 2)
    np.testing.assert_array_equal(draw_mask(np.random.default_rng(0), runouts, flat, 0.0), inside)


def test_depth_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    points, radius = rng.uniform(-3, 20, (25, 2)), rng.uniform(0.5, 4, 25)
    row, column = np.mgrid[:17, :17]
    slow = np.max([r - np.hypot(row - y, column - x) for (y, x), r in zip(points, radius, strict=True)], axis=0)
    fast = depth(points, radius, 17)
    np.testing.assert_allclose(fast[slow > -0.5], slow[slow > -0.5])
    assert (fast <= slow + 1e-9).all()


def test_drained_area_agrees_with_walking_every_path() -> None:
    rng = np.random.default_rng(1)
    receiver = np.append([rng.integers(k + 1, 41) for k in range(40)], 40)  # always onwards, 40 is the outside
    slow = np.zeros(41)
    for cell in range(40):
        while cell != 40:
            slow[cell] += 1
            cell = receiver[cell]
    np.testing.assert_array_equal(drained_area(receiver), slow)


def test_sunlight_on_level_ground_and_towards_the_sun() -> None:
    assert sunlight(np.zeros((2, 1, 1)), 123.0, 40.0) == pytest.approx(1.0)
    east = np.array([0.0, -1.0]).reshape(2, 1, 1)  # falls towards the east at 45 degrees: faces a sun there
    assert sunlight(east, 90.0, 45.0) == pytest.approx(1 / np.sin(np.pi / 4))
    assert sunlight(east, 270.0, 45.0) == pytest.approx(0.0, abs=1e-9)
    south = np.array([-1.0, 0.0]).reshape(2, 1, 1)
    assert sunlight(south, 180.0, 45.0) == pytest.approx(1 / np.sin(np.pi / 4))


def test_slope_of_a_plane() -> None:
    row, column = np.mgrid[:6, :6]
    np.testing.assert_allclose(slope_degrees(10.0 * column + 0.0 * row), 45.0)


def test_power_field_has_its_spectrum_and_no_period() -> None:
    slopes = []
    for seed in range(6):
        field = power_field(np.random.default_rng(seed), 128, 4.0)
        assert field.mean() == pytest.approx(0, abs=1e-4) and field.std() == pytest.approx(1, abs=1e-3)
        power = np.abs(np.fft.fft2(field * np.hanning(128) * np.hanning(128)[:, None])) ** 2
        k = np.hypot(np.fft.fftfreq(128), np.fft.fftfreq(128)[:, None])
        use = (k > 0.05) & (k < 0.3)
        slopes.append(np.polyfit(np.log(k[use]), np.log(power[use]), 1)[0])
        across = np.abs(field[:, 0] - field[:, -1]).mean()
        assert across > 3 * np.abs(field[:, 0] - field[:, 1]).mean()
    assert np.mean(slopes) == pytest.approx(-4.0, abs=0.3)


def test_terrain_drains_and_has_the_slope_asked_for() -> None:
    ground = [
        make_terrain(np.random.default_rng(k), 64, slope=20.0, elevation=500.0, roughness=1.0, valley=60.0)
        for k in range(8)
    ]
    assert np.mean([each.slope.mean() for each in ground]) == pytest.approx(20.0, rel=0.2)
    for each in ground:
        row, column, down, right, area = each.streams.T
        inside = (np.stack([row, column, down, right]) >= 0).all(0) & (np.stack([row, column, down, right]) <= 63).all(
            0
        )
        at = each.dem[np.rint(row[inside]).astype(int), np.rint(column[inside]).astype(int)]
        # Streams run in the low ground.
        assert inside.sum() < 5 or at.mean() < each.dem.mean()
        assert (area >= 150).all()


def test_land_cover_sums_to_one() -> None:
    terrain = make_terrain(np.random.default_rng(0), 48, slope=25, elevation=0, roughness=1, valley=60)
    cover = draw_cover(np.random.default_rng(1), terrain, SynthDomain(size=48, farmland=1.0, roads=1.0, rivers=1.0))
    assert cover.share.shape == (len(MATERIALS), 48, 48) and cover.share.min() >= 0
    np.testing.assert_allclose(cover.share.sum(0), 1.0, atol=1e-5)


def test_vegetation_has_a_red_edge_and_loses_it_when_dormant() -> None:
    def ndvi(vigour: float) -> float:
        forest = endmembers(vigour, 0.5)[MATERIALS.index("forest")]
        return float((forest[7] - forest[3]) / (forest[7] + forest[3]))

    assert ndvi(1.0) > 0.8 > 0.6 > ndvi(0.0)


def test_write_domain_is_read_back(tmp_path: Path) -> None:
    domain = SynthDomain(seed=5, patches=3, size=48, empty=0.0)
    summary = write_domain(tmp_path / "a", domain, first_id=10)
    refs = find_patches(tmp_path, "a")
    assert [ref.number for ref in refs] == [10, 11, 12]
    images, masks = patches(domain)
    for ref, image, mask in zip(refs, images, masks, strict=True):
        np.testing.assert_array_equal(read_image(ref, Bands()), image.transpose(2, 0, 1).astype(np.float32))
        np.testing.assert_array_equal(read_mask(ref), mask)
    expected = {"patches": 3, "size": 48, "positive": masks.mean(), "empty": (masks.sum((1, 2)) == 0).mean()}
    assert summary == pytest.approx(expected)


def test_workers_and_repetition_change_no_byte(tmp_path: Path) -> None:
    domain = SynthDomain(patches=3, size=32)
    summaries = [write_domain(tmp_path / str(k), domain, workers=k % 2) for k in range(2)]
    assert files(tmp_path / "0") == files(tmp_path / "1") and summaries[0] == summaries[1]


def test_write_dataset_has_the_official_layout_and_is_written_once(tmp_path: Path) -> None:
    out = tmp_path / "data"
    first = write_dataset(out, patches=(4, 2, 3), size=32, masks=("train", "validation"), label_noise=0.3)
    assert [len(find_patches(out, split)) for split in ("train", "validation", "test")] == [4, 2, 3]
    assert all(ref.mask is None for ref in find_patches(out, "test"))
    assert first["test"]["patches"] == 3
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert write_dataset(out, patches=(4, 2, 3), size=32, masks=("validation", "train"), label_noise=0.3) == first
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(DataError, match="other arguments"):
        write_dataset(out, patches=(4, 2, 4), size=32)


def test_an_interrupted_data_set_is_finished_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write_dataset(whole, patches=(2, 1, 1), size=32)

    def stop(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("l4s.data.synth._write_patch", stop)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(broken, patches=(2, 1, 1), size=32)
    write_dataset(broken, patches=(2, 1, 1), size=32)
    assert files(whole) == files(broken)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_dataset(tmp_path, patches=(1, 1, 1), size=32)
    assert list(files(tmp_path)) == ["notes.txt"]
    with pytest.raises(DataError, match="is a file"):
        write_dataset(tmp_path / "notes.txt", patches=(1, 1, 1), size=32)


@pytest.mark.parametrize("wrong", [{"size": 3}, {"label_noise": 2.0}, {"strength": 5.0}, {"masks": ("valid",)}])
def test_arguments_out_of_range_write_nothing(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        write_dataset(tmp_path / "out", **{"patches": (1, 1, 1), **wrong})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_only_the_source_has_label_noise(tmp_path: Path) -> None:
    """Scores on targets are against the truth."""
    for name, noise in (("clean", 0.0), ("noisy", 0.9)):
        write_dataset(tmp_path / name, patches=(6, 3, 3), size=48, label_noise=noise)
    clean, noisy = files(tmp_path / "clean"), files(tmp_path / "noisy")
    differ = {name for name in clean if clean[name] != noisy[name]}
    assert any(name.startswith("TrainData/mask") for name in differ)
    assert all(name.startswith("TrainData/mask") or name == "synth.json" for name in differ)


def test_the_command_prints_shares_and_repeats_without_work(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command.synth)
    arguments = [str(tmp_path / "out"), "--train", "3", "--validation", "2", "--test", "1", "--size", "32"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    assert all(word in first.output for word in ("train", "validation", "test", "32 px", "%"))
    assert CliRunner().invoke(app, arguments).output == first.output
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert '"patches": 3' in as_json.output
    other = CliRunner().invoke(app, [*arguments, "--seed", "1"])
    assert isinstance(other.exception, L4SError) and "other arguments" in str(other.exception)
