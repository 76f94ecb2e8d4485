"""Training pairs of super-resolution: no patch has borders of its own, no image is on both sides, nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.data.datasets.degradation import Degradation, imresize
from pipelines.data.datasets.superres import RandomPatches, TiledPatches, divide, make_pairs
from pipelines.data.errors import InputError
from pipelines.superres.models.cfsr import CFSR
from pipelines.superres.result import busiest
from pipelines.superres.training import absolute_error, begin_from


def image(seed: int, height: int = 50, width: int = 61) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_images_are_trained_on_or_held_out() -> None:
    names = [f"{i}.png" for i in range(20)]
    fitting, held = divide(names, share=0.1, seed=3)
    assert len(held) == 2
    assert sorted(fitting + held) == sorted(names)
    assert divide(list(reversed(names)), share=0.1, seed=3)[1] == held  # order of the files has no say
    assert divide(names, share=0.1, seed=4)[1] != held
    with pytest.raises(InputError, match="too few"):
        divide(["a"], share=0.1, seed=0)
    with pytest.raises(InputError, match="same name"):
        divide(["a", "a"], share=0.1, seed=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pairs_are_of_the_whole_image(scale: int) -> None:
    pairs, notes = make_pairs({"a": image(0)}, Degradation(scale), reductions=(1, 0.5), least=8)
    assert notes == []
    whole = pairs[0]
    cut = image(0)[: 50 - 50 % scale, : 61 - 61 % scale]
    assert (whole.large == cut).all()
    assert (whole.small == imresize(cut, 1 / scale)).all()
    patches = RandomPatches(pairs[:1], 8, 4)
    torch.manual_seed(0)
    batch = patches.__getitems__(range(40))
    found = 0
    for x, y in zip(batch["x"], batch["y"], strict=True):
        for turn in range(8):
            back = torch.rot90(x.flip(2) if turn >= 4 else x, -(turn % 4), (1, 2))
            large = torch.rot90(y.flip(2) if turn >= 4 else y, -(turn % 4), (1, 2))
            small = (back * 255).round().byte().permute(1, 2, 0).numpy()
            for row in range(whole.small.shape[0] - 7):
                for column in range(whole.small.shape[1] - 7):
                    if (whole.small[row : row + 8, column : column + 8] == small).all():
                        there = whole.large[scale * row : scale * row + 8 * scale, scale * column :][:, : 8 * scale]
                        assert (there == (large * 255).round().byte().permute(1, 2, 0).numpy()).all()
                        found += 1
    assert found >= 40


def test_tiles_cover_every_pixel() -> None:
    pairs, _ = make_pairs({"a": image(1), "b": image(2, 34, 80)}, Degradation(2), reductions=(1,))
    tiles = TiledPatches(pairs, 16)
    seen = [np.zeros(pair.small.shape[:2], bool) for pair in pairs]
    for p, row, column in tiles.places:
        seen[p][row : row + 16, column : column + 16] = True
    assert all(one.all() for one in seen)
    batch = tiles.__getitems__([0, len(tiles) - 1])
    assert batch["x"].shape == (2, 3, 16, 16)
    assert batch["y"].shape == (2, 3, 32, 32)


def test_small_images_are_named() -> None:
    pairs, notes = make_pairs({"tiny": image(0, 20, 20)}, Degradation(4), least=8)
    assert pairs == []
    assert "tiny" in notes[0]
    with pytest.raises(InputError, match="nothing to cut"):
        RandomPatches([], 8, 1)


def test_training_starts_from_another_scale_and_learns() -> None:
    torch.manual_seed(0)
    two = CFSR(2, dim=8, depths=(1,), kernel=3)
    four = CFSR(4, dim=8, depths=(1,), kernel=3)
    left = begin_from(four, two)
    assert left == ["upsample.0.weight", "upsample.0.bias"]
    assert torch.equal(four.conv_first.weight, two.conv_first.weight)
    pairs, _ = make_pairs({"a": np.kron(image(3, 16, 16), np.ones((4, 4, 1), np.uint8))}, Degradation(2))
    batch = RandomPatches(pairs[:1], 8, 4).__getitems__(range(8))
    step = torch.optim.Adam(two.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        total, count = absolute_error(two, batch)
        assert count == batch["y"].numel()
        (total / count).backward()
        step.step()
        step.zero_grad()
        losses.append(float(total.detach() / count))
    assert losses[-1] < 0.5 * losses[0]


def test_the_busiest_piece_of_a_small_image_is_the_image() -> None:
    assert busiest(image(0, 20, 30), 96) == (0, 0)
