"""ConvFormer (arXiv 2304.02147): parameter counts of its tables, ablations, peers written out plainly, missing joints.

No code was released; the counts are those of the paper (millions, two digits) and those of an independent formula.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.errors import ConfigError, InputError, WeightsError
from pipelines.pose.models.convformer import ConvFormer, ConvFormerConfig
from pipelines.pose.models.convformer_parts import Block
from pipelines.pose.models.linear import LinearFit, LinearLifter, fit_linear

SMALL: dict[str, Any] = {"frames": 9, "dim": 8, "heads": 2, "kernels": (3, 5), "spatial_layers": 1}
SMALL |= {"temporal_layers": 1}


def count(**sizes: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in ConvFormer(**sizes).parameters())


def formula(d: int, Bs: int, Bt: int, kernels: tuple[int, ...], T: int, J: int = 17) -> int:
    """Parameters counted by hand, term by term."""

    def block(width: int, channels: int) -> int:
        filters = 3 * sum(channels * channels * k + channels + 1 for k in kernels)  # and one eta each
        return filters + channels * (channels + 1) + 4 * width * width + 3 * width + 4 * width

    F_ = J * d
    ends = 3 * d + J * d + T * F_ + 2 * d + 2 * F_ + (T + 1) + 2 * F_ + 3 * J * (F_ + 1)
    return ends + Bs * block(d, d) + Bt * block(F_, T)


PUBLISHED = {9: (2_561_621, 2.56), 27: (2_654_735, 2.65), 81: (3_431_741, 3.43), 143: (5_244_435, 5.24)}
PUBLISHED |= {243: (10_241_735, 10.24)}


@pytest.mark.parametrize("frames", sorted(PUBLISHED))
def test_parameters_at_each_length(frames: int) -> None:
    exact, millions = PUBLISHED[frames]
    found = count(frames=frames)
    assert found == exact == formula(32, 2, 2, (7, 7, 7), frames)
    assert abs(found / 1e6 - millions) < 0.006


# The rows of the tables at T = 9: exact count here, millions printed in the paper.
ABLATIONS: list[tuple[dict[str, Any], int, float]] = [
    ({"kernels": (3,)}, 2_441_765, 2.44),
    ({"kernels": (3, 3)}, 2_461_913, 2.46),
    ({"kernels": (3, 3, 3)}, 2_482_061, 2.48),
    ({"kernels": (5,)}, 2_455_025, 2.46),
    ({"kernels": (5, 5)}, 2_488_433, 2.49),
    ({"kernels": (5, 5, 5)}, 2_521_841, 2.52),
    ({"kernels": (7,)}, 2_468_285, 2.47),
    ({"kernels": (7, 7)}, 2_514_953, 2.51),
    ({"kernels": (9,)}, 2_481_545, 2.48),
    ({"kernels": (9, 9)}, 2_541_473, 2.54),
    ({"kernels": (9, 9, 9)}, 2_601_401, 2.60),
    ({"kernels": (3, 5, 7)}, 2_521_841, 2.52),
    ({"kernels": (5, 7, 9)}, 2_561_621, 2.56),
    ({"temporal_layers": 4}, 4_947_291, 4.95),
    ({"spatial_layers": 4}, 2_701_991, 2.70),
    ({"dim": 16}, 659_445, 0.65),
    ({"dim": 16, "temporal_layers": 4}, 1_265_691, 1.26),
    ({"dim": 16, "spatial_layers": 4}, 694_823, 0.69),
    ({"dim": 64}, 10_126_101, 9.97),
]
#: Rows that are farther than 0.006 million from the print; 9.97 would be kernels that sum to 15 in place of 21.
FAR = {"{'dim': 16}": 0.0095, "{'dim': 64}": 0.157}


@pytest.mark.parametrize(("sizes", "exact", "millions"), ABLATIONS, ids=[str(sizes) for sizes, *_ in ABLATIONS])
def test_parameters_of_the_ablations(sizes: dict[str, Any], exact: int, millions: float) -> None:
    found, c = count(frames=9, **sizes), ConvFormerConfig(frames=9, **sizes)
    assert found == exact == formula(c.dim, c.spatial_layers, c.temporal_layers, c.kernels, 9)
    assert abs(found / 1e6 - millions) < FAR.get(str(sizes), 0.006)


@pytest.mark.parametrize(("frames", "expected"), [(9, 9_563_645), (81, 9_602_885)])
def test_plain_attention_at_poseformer_s_depth_has_poseformer_s_parameters(frames: int, expected: int) -> None:
    assert count(frames=frames, attention="softmax", spatial_layers=4, temporal_layers=4) == expected


@pytest.mark.parametrize(("frames", "less"), [(9, 0.73), (27, 0.72), (81, 0.64)])
def test_sixty_per_cent_fewer_parameters_hold_up_to_81_frames(frames: int, less: float) -> None:
    plain = count(frames=frames, attention="softmax", spatial_layers=4, temporal_layers=4)
    assert 1 - count(frames=frames) / plain >= less
    assert count(frames=243) > 10.2e6  # and are gone at 243: T x T filters grow with the square


def model(seed: int = 0, **sizes: Any) -> ConvFormer:
    torch.manual_seed(seed)
    return ConvFormer(**{**SMALL, **sizes}).eval()


def window(channels: int = 2, seed: int = 1, batch: int = 2, frames: int = 9) -> Tensor:
    return torch.randn(batch, frames, 17, channels, generator=torch.Generator().manual_seed(seed))


def lifted_plainly(made: ConvFormer, x: Tensor) -> Tensor:
    """The model by the equations, one window at a time, convolutions not mixed."""
    c, out = made.config, []
    for sample in x:
        frames = [made.embed(frame) + made.joint_positions[0] for frame in sample]
        for block in made.spatial:
            frames = [_block_plainly(block, frame, spatial=True) for frame in frames]
        rows = torch.stack([made.spatial_norm(frame).flatten() for frame in frames]) + made.frame_positions[0]
        for block in made.temporal:
            rows = _block_plainly(block, rows, spatial=False)
        mean = made.frame_mean.weight[0, :, 0] @ made.temporal_norm(rows) + made.frame_mean.bias
        out.append(made.head(mean).view(1, c.joints, 3))
    return torch.stack(out)


def _block_plainly(block: nn.Module, x: Tensor, *, spatial: bool) -> Tensor:
    assert isinstance(block, Block)
    mixer: Any = block.mixer
    normed = F.layer_norm(x, x.shape[-1:], block.norm1.weight, block.norm1.bias, 1e-6)
    source = normed.t() if spatial else normed
    made = []
    for mixture in (mixer.query, mixer.key, mixer.value):
        total = torch.zeros_like(source)
        for share, weight, bias in zip(mixture.eta.softmax(0), mixture.filters, mixture.bias, strict=True):
            total = total + share * F.conv1d(source[None], weight, bias, padding="same")[0]
        made.append(total.t() if spatial else total)
    H, D = mixer.num_heads, x.shape[1] // mixer.num_heads
    q, k, v = (part.view(-1, H, D).transpose(0, 1) for part in made)
    y = (torch.softmax(q @ k.transpose(1, 2) / D**0.5, -1) @ v).transpose(0, 1).flatten(1)
    P, b = mixer.output.weight, mixer.output.bias
    x = x + (y @ P.t() + b if spatial else P @ y + b[:, None])
    normed = F.layer_norm(x, x.shape[-1:], block.norm2.weight, block.norm2.bias, 1e-6)
    return x + block.feed_forward.contract(F.gelu(block.feed_forward.expand(normed)))


def test_the_model_follows_its_equations() -> None:
    made, x = model().double(), window().double()
    with torch.no_grad():
        torch.testing.assert_close(made(x), lifted_plainly(made, x), rtol=1e-9, atol=1e-11)


def test_shape_and_gradients_of_the_smallest_published_size() -> None:
    torch.manual_seed(0)
    made = ConvFormer(frames=9)
    y = made(window())
    assert y.shape == (2, 1, 17, 3)
    y.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in made.parameters())


@pytest.mark.parametrize("frames", [1, 27])
def test_other_lengths_and_joints(frames: int) -> None:
    made = model(frames=frames, joints=15)
    assert made(torch.zeros(3, frames, 15, 2)).shape == (3, 1, 15, 3)


def test_a_convolution_over_features_takes_the_mean_over_frames() -> None:
    made = model(head_kernel=3)
    assert made.frame_mean.weight.shape == (1, 9, 3)
    assert made(window()).shape == (2, 1, 17, 3)


@pytest.mark.parametrize("attention", ["softmax", "length_temperature", "auto_correlation", "legendre"])
def test_any_mechanism_for_sequences_serves(attention: str) -> None:
    made = model(attention=attention)
    y = made(window())
    assert y.shape == (2, 1, 17, 3)
    assert bool(y.isfinite().all())


def test_missing_joints_are_not_read_and_are_seen() -> None:
    made, x = model(mask=True), window(3)
    x[..., 2] = 1
    whole = made(x)
    x[0, 4, 5, 2] = 0
    outs = []
    for value in (0.0, 50.0, float("nan")):
        x[0, 4, 5, :2] = value
        outs.append(made(x))
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])
    assert not torch.equal(outs[0][0], whole[0])
    torch.testing.assert_close(outs[0][1], whole[1])


def test_a_batch_is_its_windows_and_training_draws() -> None:
    made, x = model(), window()
    torch.testing.assert_close(torch.cat([made(x[:1]), made(x[1:])]), made(x))
    deep = model(spatial_layers=2, temporal_layers=2).train()
    assert not torch.equal(deep(x), deep(x))
    rates = [block.drop_path for block in (*deep.spatial, *deep.temporal) if isinstance(block, Block)]
    assert rates == [0, 0.2, 0, 0.2]


def test_dropped_branches_are_whole_rows_scaled_up() -> None:
    torch.manual_seed(0)
    block = Block(model().temporal[0].mixer, 16, drop_path=0.5).train()  # type: ignore[arg-type]
    kept = block._kept(torch.ones(64, 9, 4))
    assert set(kept.flatten(1).mean(1).tolist()) == {0.0, 2.0}
    assert torch.equal(block.eval()._kept(torch.ones(2, 3, 4)), torch.ones(2, 3, 4))


def test_exports_with_a_free_batch() -> None:
    made, x = model(mask=True), window(3, batch=3)
    with torch.no_grad():
        program = torch.export.export(made, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
        other = window(3, seed=5, batch=5)
        torch.testing.assert_close(program.module()(other), made(other), rtol=1e-5, atol=1e-6)


def test_state_dict_round_trip_and_config_from_json_lists() -> None:
    first, second = model(0), model(1)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(window()), second(window()))
    stored: dict[str, Any] = dataclasses.asdict(ConvFormerConfig(kernels=(3, 5))) | {"kernels": [3, 5]}
    assert ConvFormerConfig(**stored) == ConvFormerConfig(kernels=(3, 5))
    assert ConvFormer(ConvFormerConfig(**SMALL), frames=11).config.frames == 11


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"frames": 8}, "odd number, so that there is a centre frame"),
        ({"frames": 0}, "positive whole number"),
        ({"dim": 30}, "divisor of dim=30"),
        ({"joints": 17.0}, "joints"),
        ({"dropout": 1.0}, "0 <= p < 1"),
        ({"drop_path": -0.1}, "0 <= p < 1"),
        ({"ratio": float("nan")}, "ratio"),
        ({"head_kernel": 2}, "head_kernel"),
        ({"kernels": (2,)}, "kernels"),
        ({"kernels": 7}, "kernels"),
        ({"attention": "low_rank"}, "a mixer for sequences"),
        ({"attention": "large_kernel"}, "a mixer for sequences"),
        ({"attention": "softmx"}, "did you mean softmax"),
        ({"kernel": (3,)}, "did you mean kernels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        ConvFormer(**sizes)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(2, 9, 16, 2), r"9 frames, 17 joints, 2 coordinates\)"),
        (torch.zeros(2, 9, 17, 3), "2 coordinates"),
        (torch.zeros(2, 27, 17, 2), "9 frames"),
        (torch.zeros(9, 17, 2), "batch"),
        (torch.zeros(2, 9, 17, 2, dtype=torch.long), "floating-point"),
    ],
)
def test_other_windows_are_refused(x: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        model()(x)


# The synthetic skeleton of the sheet: bones of fixed length around a resting pose, turned at random in space, seen from
# afar without perspective: depth is a product of what is seen, so that no linear map finds it.
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)


def skeletons(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (N, 9, 17, 2) and poses (N, 17, 3) in metres, the root at zero; each turns at a rate of its own."""
    rng = np.random.default_rng(seed)
    rest = np.random.default_rng(0).standard_normal((17, 3))
    bones = rest / np.linalg.norm(rest, axis=1, keepdims=True) + 0.2 * rng.standard_normal((count, 17, 3))
    bones *= 0.25 / np.linalg.norm(bones, axis=2, keepdims=True)
    pose = np.zeros((count, 17, 3))
    for joint in range(1, 17):
        pose[:, joint] = pose[:, PARENTS[joint]] + bones[:, joint]
    facing = np.linalg.qr(rng.standard_normal((count, 3, 3)))[0]
    facing *= np.linalg.det(facing)[:, None, None]  # a reflection of three axes is a rotation times -1
    pose = pose @ facing
    turn = np.radians(rng.uniform(-3, 3, (count, 1))) * np.arange(-4, 5)
    cos, sin = np.cos(turn)[..., None], np.sin(turn)[..., None]  # (N, 9, 1)
    x, y, z = (pose[:, None, :, axis] for axis in range(3))
    seen = np.stack([cos * x + sin * z, np.broadcast_to(y, (count, 9, 17))], -1)
    return seen.astype(np.float32), pose.astype(np.float32)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small steps gain nothing from more threads, which wait for each other where the processor is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected, axis=-1).mean())


def test_learns_the_synthetic_skeleton_to_a_third_of_the_mean_pose(one_thread: None) -> None:
    train, test = skeletons(8_000, 1), skeletons(300, 2)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"dim": 16, "kernels": (1, 3), "spatial_layers": 1, "temporal_layers": 1}
    made = ConvFormer(frames=9, **sizes, dropout=0.0, drop_path=0.0).train()
    steps, size = 200, 32
    optimiser = torch.optim.AdamW(made.parameters(), lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    x, y = (torch.from_numpy(part) for part in train)
    for step in range(steps):
        rows = slice(step * size, (step + 1) * size)
        loss = (made(x[rows])[:, 0] - y[rows]).norm(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        found = made.eval()(torch.from_numpy(test[0]))[:, 0].numpy()
    mean, linear = train[1].mean(0), fit_linear([train], window=9).predict(test[0])
    assert error(found, test[1]) < 0.3 * error(mean, test[1])
    assert error(found, test[1]) < 0.8 * error(linear, test[1])


def test_the_linear_lifter_is_ridge_regression() -> None:
    from sklearn.linear_model import Ridge

    x, y = skeletons(400, 3)
    flat = x[:, 3:6].reshape(400, -1).astype(np.float64)
    ridge = 1e-3
    peer = Ridge(alpha=ridge * flat.var(0).mean() * len(flat), solver="svd").fit(flat, y.reshape(400, -1))
    made = fit_linear([(x[:150], y[:150]), (x[150:], y[150:])], window=3, ridge=ridge)
    assert made.samples == 400
    test, _ = skeletons(50, 4)
    expected = peer.predict(test[:, 3:6].reshape(50, -1)).reshape(50, 17, 3)
    np.testing.assert_allclose(made.predict(test), expected, rtol=1e-5, atol=1e-6)
    assert error(made.predict(test), skeletons(50, 4)[1]) < error(y.mean(0), skeletons(50, 4)[1])


def test_the_linear_lifter_reads_no_missing_joint_and_counts_poses_left_out() -> None:
    x, y = skeletons(300, 5)
    there = np.random.default_rng(0).random((*x.shape[:-1], 1)) > 0.2
    masked = np.concatenate([np.where(there, x, 0), there], -1).astype(np.float32)
    noisy = np.where(there, masked, np.array([np.nan, 9.0, 0.0], np.float32))
    valid = np.ones((300, 17), bool)
    valid[:10, 3] = False
    poses = y.copy()
    poses[:10, 3] = np.nan
    a = fit_linear([(masked, y, valid)], mask=True)
    b = fit_linear([(noisy, poses, valid)], mask=True)
    assert (a.samples, a.skipped) == (290, 10)
    np.testing.assert_array_equal(a.weight, b.weight)
    np.testing.assert_array_equal(a.predict(masked), b.predict(noisy))
    restored = LinearLifter.from_arrays(a.arrays())
    assert (restored.mask, restored.skipped) == (True, 10)


def test_the_linear_lifter_refuses_what_does_not_fit() -> None:
    x, y = skeletons(20, 6)
    made = fit_linear([(x, y)])
    with pytest.raises(InputError, match="17, 2"):
        made.predict(x[:, :, :15])
    with pytest.raises(InputError, match="odd number of frames"):
        made.predict(x[:, :8])
    with pytest.raises(InputError, match="not finite"):
        made.predict(np.full_like(x, np.nan))
    with pytest.raises(InputError, match="a pose a window"):
        LinearFit().add(x, y[:3])
    with pytest.raises(InputError, match="nothing to fit"):
        LinearFit().solve()
    with pytest.raises(ConfigError, match="odd number"):
        LinearFit(2)
    with pytest.raises(ConfigError, match="ridge"):
        fit_linear([(x, y)], ridge=-1)
    with pytest.raises(WeightsError, match="do not fit their sizes"):
        LinearLifter.from_arrays(made.arrays() | {"bias": np.zeros(3)})
    with pytest.raises(WeightsError, match="not a linear lifter"):
        LinearLifter.from_arrays({"weight": made.weight})


def test_a_lifter_needs_no_torch() -> None:
    import subprocess
    import sys

    script = "import sys, pipelines.pose.models.linear; print(sorted({'torch'} & set(sys.modules)))"
    root = pathlib.Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert run.stdout.strip() == "[]"
