"""Episodes out of arrays, files of arrays, folders, lists, dictionaries and films, and what is said about them."""

from __future__ import annotations

import pathlib
import pickle
import resource
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from pipelines.data.datasets.world_open import WorldReading, open_episodes
from pipelines.data.datasets.world_types import ArrayFrames, Episode, Frames
from pipelines.data.errors import InputError
from pipelines.data.formats.episodes_npy import open_npz
from pipelines.data.formats.episodes_views import SizedFrames

KEEP = WorldReading(size=None)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def moving(many: int, frames: int, side: int = 32, seed: int = 0) -> np.ndarray:
    """(N, T, H, W) squares that go their ways."""
    rng = np.random.default_rng(seed)
    out = np.zeros((many, frames, side, side), np.uint8)
    for movie in out:
        y, x, dy, dx = *rng.integers(0, side - 12, 2), *rng.integers(0, 2, 2)
        for t, frame in enumerate(movie):
            frame[y + t * dy // 2 :, x + t * dx // 2 :][:9, :9] = 255
    return out


def one(episodes: Sequence[Episode]) -> Episode:
    assert len(episodes) == 1
    return episodes[0]


def values(episode: Episode) -> np.ndarray:
    frames = episode.frames.read(0, len(episode))
    assert frames.dtype == np.uint8
    assert frames.shape == episode.shape
    return frames


def said(episode: Episode, words: str) -> None:
    assert any(words in note for note in episode.notes), episode.notes


# Arrays


@pytest.mark.parametrize(
    ("shape", "layout", "order"),
    [
        ((5, 8, 9), None, (0, 1, 2)),
        ((5, 8, 9, 3), None, (0, 1, 2, 3)),
        ((5, 8, 9, 1), None, (0, 1, 2, 3)),
        ((5, 3, 8, 9), None, (0, 2, 3, 1)),
        ((5, 1, 8, 9), None, (0, 2, 3, 1)),
        ((5, 3, 8, 3), "TCHW", (0, 2, 3, 1)),
    ],
)
def test_axes_of_one_episode(shape: tuple[int, ...], layout: str | None, order: tuple[int, ...]) -> None:
    movie = noise(*shape)
    episode = one(open_episodes(movie, WorldReading(size=None, layout=layout)))
    expected = movie.transpose(order)
    np.testing.assert_array_equal(values(episode), expected if expected.ndim == 4 else expected[..., None])
    if order != tuple(range(len(shape))) and layout is None:
        said(episode, "channels first")


def test_time_and_episodes_are_told_apart_by_likeness() -> None:
    movies = moving(24, 20)
    for array, word in ((movies, "(N, T, H, W)"), (movies.swapaxes(0, 1), "(T, N, H, W)")):
        episodes = open_episodes(array, KEEP)
        assert [len(episode) for episode in episodes] == [20] * 24
        for episode, movie in zip(episodes, movies, strict=True):
            np.testing.assert_array_equal(values(episode)[..., 0], movie)
        said(episodes[0], word)
        said(episodes[0], "neighbours differ by")
    with pytest.raises(InputError, match=r"cannot be told which axis is time.*NTHW.*TNHW"):
        open_episodes(noise(6, 7, 8, 8))
    assert len(open_episodes(noise(6, 7, 8, 8), WorldReading(layout="TNHW"))) == 7


def test_arrays_beside_tell_which_axis_is_time() -> None:
    movies = noise(6, 7, 8, 8)
    episodes = open_episodes({"frames": movies, "actions": np.zeros((6, 6, 2))}, KEEP)
    assert [len(one) for one in episodes] == [7] * 6
    assert episodes[0].actions is not None
    assert episodes[0].actions.shape == (6, 2)
    steps = np.arange(42.0).reshape(6, 7, 1)
    turned = open_episodes({"frames": movies, "actions": steps}, WorldReading(size=None, layout="TNHW"))
    assert [len(one) for one in turned] == [6] * 7
    assert turned[2].actions is not None
    np.testing.assert_array_equal(turned[2].actions, steps[:, 2])
    np.testing.assert_array_equal(values(turned[2])[..., 0], movies[:, 2])


@pytest.mark.parametrize(
    ("kind", "factor", "words"),
    [
        ("float32", 1 / 255, "from 0 to 1: times 255"),
        ("float64", 1.0, "read as 0 to 255, rounded"),
        ("float16", 1 / 255, "times 255"),
        ("int64", 1, "read as 0 to 255"),
        ("uint16", 1, "read as 0 to 255"),
    ],
)
def test_scales_are_told_apart_and_said(kind: str, factor: float, words: str) -> None:
    movie = noise(5, 8, 8, 3)
    movie[0, 0, 0] = 0, 255, 7
    episode = one(open_episodes((movie * factor).astype(kind), KEEP))
    np.testing.assert_array_equal(values(episode), movie)
    said(episode, words)


def test_true_and_false_binary_and_a_white_of_ones_own() -> None:
    mask = noise(5, 8, 8) > 127
    for array in (mask, mask.astype(np.int32)):
        np.testing.assert_array_equal(values(one(open_episodes(array, KEEP)))[..., 0], np.where(mask, 255, 0))
    deep = noise(5, 8, 8).astype(np.uint16) * 257
    np.testing.assert_array_equal(
        values(one(open_episodes(deep, WorldReading(size=None, white=65535))))[..., 0], deep // 257
    )
    with pytest.raises(InputError, match=r"scale of the frames is not known.*uint16 from \d+ to \d+.*white"):
        open_episodes(deep)


def test_a_dark_episode_is_not_made_brighter_than_its_neighbours(tmp_path: pathlib.Path) -> None:
    """One scale for all files of a folder: an episode with values up to 1 of 255 stays dark."""
    dark, bright = np.zeros((4, 8, 8), np.float32), noise(4, 8, 8).astype(np.float32)
    dark[1:, 2, 2] = 1.0
    bright[0, 0, 0] = 255.0
    np.save(tmp_path / "a.npy", dark)
    np.save(tmp_path / "b.npy", bright)
    episodes = open_episodes(tmp_path, KEEP)
    assert values(episodes[0]).max() == 1


def area_mean(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Every new pixel as a mean over a fine grid: each old pixel repeated so often that areas are whole."""
    fine = np.repeat(np.repeat(frame.astype(np.float64), height, 0), width, 1)
    return fine.reshape(height, len(frame), width, frame.shape[1], -1).mean((1, 3))


@pytest.mark.parametrize("size", [(4, 5), (2, 10), (8, 2), (8, 10), (1, 1)])
def test_resizing_averages_areas(size: tuple[int, int]) -> None:
    movie = noise(3, 8, 10, 3)
    episode = one(open_episodes(movie, WorldReading(size=size)))
    exact = np.stack([area_mean(frame, *size) for frame in movie])
    assert np.abs(values(episode) - exact).max() <= 1 + 1e-4  # rounded after each axis
    if size != (8, 10):
        said(episode, f"8 x 10 px brought to {size[0]} x {size[1]} by averaging areas")
    else:
        assert episode.notes == ()


def test_resizing_works_in_pieces_and_as_films_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.data.formats.episodes_views._PIECE_BYTES", 50_000)
    for movie, mode in ((noise(9, 64, 96, 3), "RGB"), (noise(9, 64, 96, 1), "L")):
        sized = SizedFrames(ArrayFrames(movie), (25, 100))  # fewer rows, more columns
        for frame, ours in zip(movie[2:], sized.read(2, 9), strict=True):
            image = Image.fromarray(frame.squeeze())
            assert image.mode == mode
            image = image.resize((96, 25), Image.Resampling.BOX).resize((100, 25), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(np.asarray(image), ours.squeeze())


def test_colours() -> None:
    movie = noise(5, 8, 8, 3)
    grey = one(open_episodes(movie, WorldReading(size=None, colour="grey")))
    exact = movie @ np.array([0.299, 0.587, 0.114])
    assert np.abs(values(grey)[..., 0] - exact).max() <= 0.5 + 1e-4
    said(grey, "luma")
    rgb = one(open_episodes(movie[..., 0], WorldReading(size=None, colour="rgb")))
    assert (values(rgb) == movie[..., :1]).all()
    with pytest.raises(InputError, match=r"colour and in grey.*8 x 8 RGB \(array 0\) and 8 x 8 grey \(array 1\)"):
        open_episodes([movie, movie[..., :1]], KEEP)
    assert len(open_episodes([movie, movie[..., :1]], KEEP, mixed=True)) == 2


# Python objects


def test_lists_are_frames_or_episodes() -> None:
    frames = list(noise(6, 8, 8, 3))
    assert one(open_episodes(frames, KEEP)).shape == (6, 8, 8, 3)
    assert one(open_episodes([Image.fromarray(frame) for frame in frames], KEEP)).shape == (6, 8, 8, 3)
    assert one(open_episodes([frame[..., 0] for frame in frames], KEEP)).shape == (6, 8, 8, 1)
    assert one(open_episodes(noise(4, 8, 8).tolist(), KEEP)).shape == (4, 8, 8, 1)
    ragged = open_episodes([noise(4, 8, 8, 3), noise(7, 8, 8, 3)], KEEP)
    assert [len(episode) for episode in ragged] == [4, 7]
    assert [episode.name for episode in ragged] == ["array 0", "array 1"]
    with pytest.raises(InputError, match=r"different sizes in one episode.*\(8, 8, 3\) \(frame 0\).*\(8, 9, 3\)"):
        open_episodes([noise(8, 8, 3), noise(8, 9, 3)], KEEP)


def test_dictionaries_are_one_episode_or_several() -> None:
    movie = noise(6, 8, 8, 3)
    held = {
        "video": movie, "action": np.array([2, 0, 1, 1, 0]), "reward": np.arange(6.0), "state": np.zeros((6, 4)),
        "fps": 12, "state_names": ["x", "y", "vx", "vy"],
    }  # fmt: skip
    episode = one(open_episodes(held, KEEP))
    assert episode.fps == 12
    assert episode.actions is not None
    np.testing.assert_array_equal(episode.actions, np.eye(3)[[2, 0, 1, 1, 0]])
    assert episode.action_names == ("action=0", "action=1", "action=2")
    assert episode.rewards is not None
    np.testing.assert_array_equal(episode.rewards, np.arange(5.0))
    assert episode.state_names == ("x", "y", "vx", "vy")
    said(episode, "3 kinds, one-hot")
    said(episode, "the reward after the last frame is not used")
    both = open_episodes({"left": movie, "right": {"frames": movie}}, KEEP)
    assert [one.name for one in both] == ["left", "right"]


def test_kinds_are_coded_alike_in_all_episodes() -> None:
    movie = noise(4, 8, 8)
    parts = [{"frames": movie, "actions": np.array(kinds)} for kinds in ([0, 1, 0], [5, 5, 0])]
    first, second = open_episodes(parts, KEEP)
    assert first.actions is not None
    assert second.actions is not None
    assert first.actions.shape == second.actions.shape == (3, 6)
    assert second.actions[0].argmax() == 5
    amounts = open_episodes(parts, WorldReading(size=None, discrete=False))[1]
    assert amounts.actions is not None
    assert amounts.actions.ravel().tolist() == [5, 5, 0]
    texts = open_episodes({"frames": movie, "actions": ["up", "down", "up"]}, KEEP)[0]
    assert texts.action_names == ("action=down", "action=up")


def test_episodes_and_frames_pass_through_as_they_are() -> None:
    frames = ArrayFrames(noise(6, 8, 8, 3))
    episode = Episode("mine", frames, 10.0, actions=np.ones((5, 2), np.float32), action_names=("a", "b"), notes=("x",))
    again = one(open_episodes(episode, KEEP))
    assert again.frames is frames
    assert (again.name, again.fps, again.action_names, again.notes) == ("mine", 10.0, ("a", "b"), ("x",))
    smaller = one(open_episodes([episode], WorldReading(size=(4, 4))))
    assert smaller.shape == (6, 4, 4, 3)
    assert isinstance(smaller.frames, Frames)
    assert one(open_episodes(frames, KEEP)).frames is frames


def test_another_rate_takes_the_frames_on_screen() -> None:
    movie = noise(10, 8, 8)
    episode = one(
        open_episodes({"frames": movie, "fps": 10.0, "states": np.arange(10.0)}, WorldReading(size=None, fps=4))
    )
    shown = [0, 2, 5, 7]  # at 0, 0.25, 0.5, 0.75 s
    np.testing.assert_array_equal(values(episode)[..., 0], movie[shown])
    assert episode.states is not None
    assert episode.states.ravel().tolist() == shown
    said(episode, "4 of 10 frames, 6 left out, 0 repeated")
    faster = one(open_episodes({"frames": movie[:3], "fps": 10.0}, WorldReading(size=None, fps=20)))
    np.testing.assert_array_equal(values(faster)[..., 0], movie[[0, 0, 1, 1, 2]])
    said(faster, "2 repeated")
    with pytest.raises(InputError, match="another frame rate would part them"):
        open_episodes({"frames": movie, "fps": 10.0, "actions": np.zeros((9, 1))}, WorldReading(fps=4))
    unknown = one(open_episodes(movie, WorldReading(size=None, fps=4)))
    assert (len(unknown), unknown.fps) == (10, 4)


def test_nothing_moves_is_said() -> None:
    still = np.repeat(noise(1, 8, 8, 3), 7, 0)
    said(one(open_episodes(still, KEEP)), "nothing moves: all 7 frames are equal")
    still[6, 3, 3, 1] ^= 1
    assert one(open_episodes(still, KEEP)).notes == ()


# Files of arrays


def test_npy_is_mapped_and_moving_mnist_is_known_by_its_name(tmp_path: pathlib.Path) -> None:
    movies = noise(20, 30, 64, 64)  # no likeness to go by
    np.save(tmp_path / "mnist_test_seq.npy", movies)
    episodes = open_episodes(tmp_path / "mnist_test_seq.npy")
    assert [len(episode) for episode in episodes] == [20] * 30
    np.testing.assert_array_equal(values(episodes[17])[..., 0], movies[:, 17])
    assert episodes[17].name == "mnist_test_seq/17"


def test_a_large_array_is_never_loaded(tmp_path: pathlib.Path) -> None:
    """600 MB on disk (a hole), a hundredth of it in memory."""
    path = tmp_path / "large.npy"
    with path.open("wb") as file:
        head = {"descr": "|u1", "fortran_order": False, "shape": (50_000, 64, 64, 3)}
        np.lib.format.write_array_header_1_0(file, head)
        file.truncate(file.tell() + 50_000 * 64 * 64 * 3)
    open_episodes(noise(3, 8, 8))  # what imports need
    with path.open("r+b") as file:
        file.seek(-(64 * 64 * 3) * 49_998, 2)
        file.write(b"\x07" * 100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    episode = one(open_episodes(path))
    assert len(episode) == 50_000
    assert episode.frames.read(2, 3).max() == 7
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


def test_npz_by_names_by_shape_and_by_key(tmp_path: pathlib.Path) -> None:
    movie = noise(6, 8, 8, 3)
    np.savez_compressed(tmp_path / "a.npz", observations=movie, actions=np.zeros((6, 2)), fps=15, seed=3)
    episode = one(open_episodes(tmp_path / "a.npz", KEEP))
    np.testing.assert_array_equal(values(episode), movie)
    assert (episode.name, episode.fps) == ("a", 15)
    said(episode, "frames are observations; 1 arrays not read: seed")
    np.savez(tmp_path / "b.npz", camera=movie, speed=np.zeros(5))
    assert one(open_episodes(tmp_path / "b.npz", KEEP)).shape == (6, 8, 8, 3)
    np.savez(tmp_path / "c.npz", left=movie, right=movie[::-1])
    with pytest.raises(InputError, match=r"several arrays may be the frames.*left.*right.*\(key\)"):
        open_episodes(tmp_path / "c.npz")
    chosen = one(open_episodes(tmp_path / "c.npz", WorldReading(size=None, key="right")))
    np.testing.assert_array_equal(values(chosen), movie[::-1])
    np.savez(tmp_path / "d.npz", obs=movie, next_obs=movie)
    assert one(open_episodes(tmp_path / "d.npz", KEEP)).shape == (6, 8, 8, 3)


def test_flat_arrays_are_parted_at_marked_ends(tmp_path: pathlib.Path) -> None:
    movie, acts = noise(10, 8, 8, 3), np.arange(20.0).reshape(10, 2)
    ends = np.isin(np.arange(10), [2])
    held = {"observations": movie, "actions": acts, "rewards": np.arange(10.0)}
    np.savez(tmp_path / "a.npz", **held, terminals=ends, timeouts=np.isin(np.arange(10), [6]))
    episodes = open_episodes(tmp_path / "a.npz", KEEP)
    assert [(one.name, len(one)) for one in episodes] == [("a/0", 3), ("a/1", 4), ("a/2", 3)]
    np.testing.assert_array_equal(values(episodes[1]), movie[3:7])
    assert episodes[1].actions is not None
    np.testing.assert_array_equal(episodes[1].actions, acts[3:7])
    assert episodes[1].rewards is not None
    assert episodes[1].rewards.tolist() == [3, 4, 5]
    said(episodes[0], "the last episode is not marked as ended")
    np.savez(tmp_path / "b.npz", **held, episode_ends=np.array([4, 10]))
    assert [len(one) for one in open_episodes(tmp_path / "b.npz", KEEP)] == [4, 6]
    np.savez(tmp_path / "c.npz", **held, is_first=np.isin(np.arange(10), [0, 5]))
    assert [len(one) for one in open_episodes(tmp_path / "c.npz", KEEP)] == [5, 5]
    np.savez(tmp_path / "d.npz", **held, episode_ends=np.array([4, 11]))
    with pytest.raises(InputError, match="ends of episodes do not fit the frames"):
        open_episodes(tmp_path / "d.npz")


def test_large_members_are_unpacked_into_a_map_that_goes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr("pipelines.data.formats.episodes_npy._IN_MEMORY", 1000)
    (tmp_path / "scratch").mkdir()
    movie = noise(6, 16, 16, 3)
    np.savez_compressed(tmp_path / "a.npz", frames=np.asfortranarray(movie), fps=3)
    arrays = open_npz(tmp_path / "a.npz")
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    part = np.asarray(arrays["frames"][2:4])
    del arrays
    np.testing.assert_array_equal(part, movie[2:4])
    del part
    assert not list((tmp_path / "scratch").iterdir())


def robomimic(path: pathlib.Path, lengths: Sequence[int] = (5, 3, 4)) -> list[np.ndarray]:
    movies = [noise(length, 8, 8, 3, seed=place) for place, length in enumerate(lengths)]
    with h5py.File(path, "w") as file:
        for number, movie in zip((10, 0, 2), movies, strict=True):
            group = file.create_group(f"data/demo_{number}")
            group.create_dataset("obs/agentview_image", data=movie, chunks=(1, 8, 8, 3), compression="gzip")
            group["obs/eef_pos"] = np.zeros((len(movie), 3))
            group["actions"], group["rewards"] = np.full((len(movie), 7), float(number)), np.zeros(len(movie))
            group["states"], group["dones"] = np.zeros((len(movie), 5)), np.zeros(len(movie), np.int64)
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])
        file["data"].attrs["fps"] = 20
    return movies


def test_groups_of_hdf5_are_episodes_in_natural_order(tmp_path: pathlib.Path) -> None:
    movies = robomimic(tmp_path / "low.hdf5")
    episodes = open_episodes(tmp_path / "low.hdf5", KEEP)
    assert [one.name for one in episodes] == ["low/demo_0", "low/demo_2", "low/demo_10"]
    for episode, place in zip(episodes, (1, 2, 0), strict=True):
        np.testing.assert_array_equal(values(episode), movies[place])
        np.testing.assert_array_equal(episode.frames.read(1, 3), movies[place][1:3])
    assert episodes[0].fps == 20
    assert episodes[2].actions is not None
    assert (episodes[2].actions == 10).all()
    assert episodes[0].states is not None
    assert episodes[0].states.shape == (3, 5)
    again = pickle.loads(pickle.dumps(episodes[0].frames))
    np.testing.assert_array_equal(again.read(0, 3), movies[1])


def test_two_cameras_are_asked_for(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in (0, 1):
            file[f"episode_{number}/camera_1/rgb"] = noise(4, 8, 8, 3)
            file[f"episode_{number}/camera_2/rgb"] = noise(4, 8, 8, 3, seed=5)
    with pytest.raises(InputError, match=r"several arrays may be the frames.*camera_1/rgb.*camera_2/rgb"):
        open_episodes(tmp_path / "a.h5")
    episodes = open_episodes(tmp_path / "a.h5", WorldReading(size=None, key="camera_2/rgb"))
    assert len(episodes) == 2
    np.testing.assert_array_equal(values(episodes[1]), noise(4, 8, 8, 3, seed=5))


def test_flat_hdf5_and_arrays_called_as_episodes(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "flat.hdf5", "w") as file:
        file["observations"], file["actions"] = noise(8, 8, 8, 3), np.zeros((8, 2))
        file["terminals"] = np.isin(np.arange(8), [3, 7])
    assert [len(one) for one in open_episodes(tmp_path / "flat.hdf5", KEEP)] == [4, 4]
    with h5py.File(tmp_path / "sets.hdf5", "w") as file:
        file["episode_0"], file["episode_1"] = noise(3, 8, 8), noise(6, 8, 8)
    assert [len(one) for one in open_episodes(tmp_path / "sets.hdf5", KEEP)] == [3, 6]


# Folders


def test_a_folder_of_arrays_in_natural_order(tmp_path: pathlib.Path) -> None:
    for name, frames in (("v10", 4), ("v2", 3), ("inner/v1", 5)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", noise(frames, 64, 64, 3))
    (tmp_path / "readme.md").write_text("...")
    np.save(tmp_path / "short.npy", noise(1, 64, 64, 3))
    episodes = open_episodes(tmp_path)
    assert [(one.name, len(one)) for one in episodes] == [("inner/v1", 5), ("v2", 3), ("v10", 4)]
    said(episodes[0], "1 .md")
    said(episodes[0], "1 episodes shorter than 2 frames left out (short)")
    assert len(open_episodes(tmp_path, least=1)) == 4


def test_a_folder_whose_arrays_are_parts_of_one_episode(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "frames.npy", noise(6, 8, 8, 3))
    np.save(tmp_path / "actions.npy", np.ones((5, 2)))
    episode = one(open_episodes(tmp_path, KEEP))
    assert episode.actions is not None
    assert episode.actions.shape == (5, 2)


def test_numbered_images(tmp_path: pathlib.Path) -> None:
    movie = noise(12, 8, 8, 3)
    for number, frame in enumerate(movie):
        Image.fromarray(frame).save(tmp_path / f"f{number}.png")
    episode = one(open_episodes(tmp_path, WorldReading(size=None, fps=10)))
    np.testing.assert_array_equal(values(episode), movie)
    assert episode.fps == 10


def ucf(folder: pathlib.Path, groups: Sequence[int] = (1, 2, 7, 8, 9, 25)) -> None:
    for place, name in enumerate(("Archery", "Biking")):
        (folder / name).mkdir(parents=True)
        for group in groups:
            for clip in (1, 2):
                movie = noise(3, 8, 8, 3, seed=100 * place + 2 * group + clip)
                np.save(folder / name / f"v_{name}_g{group:02}_c{clip:02}.npy", movie)


def test_ucf101_is_split_by_its_groups(tmp_path: pathlib.Path) -> None:
    ucf(tmp_path)
    parts = {
        subset: open_episodes(tmp_path, WorldReading(size=None, subset=subset)) for subset in ("train", "test", "all")
    }
    groups = {name: {one.name.rsplit("_c", 1)[0] for one in part} for name, part in parts.items()}
    assert not groups["train"] & groups["test"]
    assert groups["train"] | groups["test"] == groups["all"]
    assert {name[-3:] for name in groups["test"]} == {"g01", "g02", "g07"}
    said(parts["test"][0], "by groups (1 to 7 to measure on): 12 clips to measure on, 12 to learn from")
    second = open_episodes(tmp_path, WorldReading(size=None, subset="test", split=2))
    assert {one.name[-7:-4] for one in second} == {"g08", "g09"}
    with pytest.raises(InputError, match="1, 2 or 3"):
        open_episodes(tmp_path, WorldReading(subset="test", split=4))


def test_the_lists_of_ucf101_count_more_and_may_not_leak(tmp_path: pathlib.Path) -> None:
    ucf(tmp_path / "UCF-101", groups=(1, 2, 3))
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    train = [f"{name}/v_{name}_g0{g}_c0{c}.avi 1\n" for name in ("Archery", "Biking") for g in (1, 2) for c in (1, 2)]
    test = ["Archery/v_Archery_g03_c01.avi\n", "Archery/v_Archery_g09_c01.avi\n"]
    (lists / "trainlist01.txt").write_text("".join(train))
    (lists / "testlist01.txt").write_text("".join(test))
    held = open_episodes(tmp_path / "UCF-101", WorldReading(size=None, subset="test"))
    assert [one.name for one in held] == ["Archery/v_Archery_g03_c01"]
    said(held[0], "by its lists: 1 clips to measure on, 8 to learn from")
    said(held[0], "3 clips on no side")
    said(held[0], "1 clips of the lists are not in the folder")
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g03_c01.avi\n")
    (lists / "trainlist01.txt").write_text("".join(train) + "Archery/v_Archery_g03_c02.avi 1\n")
    with pytest.raises(InputError, match=r"cut from one film are on both sides.*v_archery_g03"):
        open_episodes(tmp_path / "UCF-101", WorldReading(subset="test"))
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other/a.npy", noise(3, 8, 8))
    with pytest.raises(InputError, match="no data set with a split of its own"):
        open_episodes(tmp_path / "other", WorldReading(subset="test"))


# Films, and actions in tables beside them


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Twelve frames at 10 Hz, each of one grey."""
    path = tmp_path_factory.mktemp("film") / "clip.gif"
    shades = [Image.new("L", (16, 16), 20 * k) for k in range(12)]
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=100)
    return path


def beside(film: pathlib.Path, folder: pathlib.Path, text: str) -> pathlib.Path:
    target = folder / film.name
    target.write_bytes(film.read_bytes())
    target.with_suffix(".csv").write_text(text)
    return target


def test_a_film(film: pathlib.Path) -> None:
    episode = one(open_episodes(film, WorldReading(size=(8, 8))))
    assert (episode.name, episode.fps, len(episode)) == ("clip", 10.0, 12)
    assert np.abs(values(episode)[:, 0, 0, 0].astype(int) - 20 * np.arange(12)).max() <= 1
    slow = one(open_episodes(film, WorldReading(size=(8, 8), fps=5)))
    assert (slow.fps, len(slow)) == (5.0, 6)
    seen: list[tuple[str, int, int | None]] = []
    open_episodes(film, WorldReading(size=(8, 4)), progress=lambda *told: seen.append(told))
    assert seen[-1][:2] == ("clip", 12)


def test_a_film_of_variable_rate_has_the_rate_of_its_stamps(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "slow.gif"
    shades = [Image.new("L", (16, 16), 20 * k) for k in range(8)]
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=[100, 100, 900, 100, 500, 100, 100, 100])
    episode = one(open_episodes(path, WorldReading(size=(8, 8))))
    assert episode.fps == pytest.approx(7 / 1.9, rel=0.01)
    assert any(note.startswith("frame rate: 3.684 Hz on average by the time stamps") for note in episode.notes)
    even = one(open_episodes(path, WorldReading(size=(8, 8), fps=5)))
    assert even.fps == 5
    assert not any("header's" in note for note in even.notes)


def test_actions_beside_a_film_by_row_by_frame_and_by_time(film: pathlib.Path, tmp_path: pathlib.Path) -> None:
    small = WorldReading(size=(8, 8))
    rows = "push,key\n" + "".join(f"{k / 4},{'ab'[k % 2]}\n" for k in range(11))
    episode = one(open_episodes(beside(film, tmp_path, rows), small))
    assert episode.action_names == ("push", "key=a", "key=b")
    assert episode.actions is not None
    np.testing.assert_allclose(episode.actions[3], [0.75, 0, 1])
    said(episode, "actions of clip.csv: push, key")
    order = np.random.default_rng(0).permutation(12)
    text = "frame;steer\n" + "".join(f"{k + 1};{k * 0.5}\n" for k in order)
    episode = one(open_episodes(beside(film, tmp_path, text), small))
    assert episode.actions is not None
    np.testing.assert_allclose(episode.actions.ravel(), np.arange(12) * 0.5)
    said(episode, "frames are numbered from 1")
    said(episode, "brought into the order of frames")
    timed = "time_s,button\n0,none\n0.25,left\n0.649,right\n"
    for fps in (None, 5):
        read = WorldReading(size=(8, 8), fps=fps)
        episode = one(open_episodes(beside(film, tmp_path, timed), read))
        assert episode.actions is not None
        letters = "".join("lnr"[row.argmax()] for row in episode.actions)
        times = np.arange(len(episode) - 1) / (fps or 10)
        by_hand = "".join("n" if t < 0.25 else "l" if t < 0.649 else "r" for t in times)
        assert letters == by_hand
        said(episode, "the action in force at each frame (3 rows, 0 of them at no frame)")


def test_a_film_and_its_actions_in_a_dictionary(film: pathlib.Path, tmp_path: pathlib.Path) -> None:
    small = WorldReading(size=(8, 8))
    episode = one(open_episodes({"video": str(film), "actions": np.arange(11.0)}, small))
    assert episode.actions is not None
    assert episode.actions.ravel().tolist() == list(range(11))
    (tmp_path / "a.csv").write_text("time_s,push\n0,1\n0.5,2\n")
    amounts = WorldReading(size=(8, 8), fps=5, discrete=False)
    timed = one(open_episodes({"video": film, "actions": tmp_path / "a.csv"}, amounts))
    assert timed.actions is not None
    assert timed.actions.ravel().tolist() == [1, 1, 1, 2, 2]  # at 0, 0.2, 0.4, 0.6, 0.8 s
    with pytest.raises(InputError, match="actions by number of frame need all frames"):
        open_episodes(beside(film, tmp_path, "frame,push\n0,1\n1,2\n"), WorldReading(size=(8, 8), fps=5))


def test_a_folder_of_tables(film: pathlib.Path, tmp_path: pathlib.Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    movies = {"a": noise(4, 8, 8), "b": noise(3, 8, 8)}
    (tables / "a.csv").write_text("left,right\n1,0\n0,1\n1,1\n")
    (tables / "b.csv").write_text("left,right\n1,0\n0,1\n")
    (tables / "c.csv").write_text("left,right\n1,0\n")
    first, second = open_episodes(movies, WorldReading(size=None, actions=str(tables)))
    assert first.actions is not None
    assert second.actions is not None
    assert (first.actions.shape, second.actions.shape) == ((3, 2), (2, 2))
    said(first, "1 tables of tables belong to no episode")
    (tables / "b.csv").unlink()
    with pytest.raises(InputError, match=r"without a table of actions.*none for 1 of 2 episodes \(b\)"):
        open_episodes(movies, WorldReading(actions=str(tables)))
    with pytest.raises(InputError, match="one table for 2 episodes"):
        open_episodes(movies, WorldReading(actions=str(tables / "a.csv")))


def test_episodes_of_different_sizes_and_rates_are_refused_by_name() -> None:
    held: dict[str, Any] = {"a": {"frames": noise(4, 8, 8), "fps": 10}, "b": {"frames": noise(4, 8, 9), "fps": 25}}
    with pytest.raises(InputError, match=r"different sizes.*8 x 8 grey \(a\) and 8 x 9 grey \(b\)"):
        open_episodes(held, KEEP)
    with pytest.raises(InputError, match=r"different frame rates.*10 Hz \(a\) and 25 Hz \(b\)"):
        open_episodes(held)
    assert [one.fps for one in open_episodes(held, mixed=True)] == [10, 25]
    assert [one.fps for one in open_episodes(held, WorldReading(fps=5))] == [5, 5]
