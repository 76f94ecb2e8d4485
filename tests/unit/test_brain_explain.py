"""Integrated gradients: exact on linear functions, complete on others, the same for every batch; averages by class."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError, InputError, RunError
from pipelines.fmri.explain import Rule, baseline_window, integrated_gradients, path_points
from pipelines.fmri.map_sums import MapSums

SHAPE = (1, 3, 4, 2, 5)
RULES: tuple[Rule, ...] = ("legendre", "midpoint")


def windows(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)


class Small(nn.Module):
    """A net with attention over voxels, normalisation and dropout: none of it may disturb the maps."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inner = nn.Linear(5, 8)
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, outputs)
        self.seen: list[int] = []
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        tokens = self.norm(nn.functional.gelu(self.inner(x.flatten(1, 4))))
        mixed = torch.softmax(tokens @ tokens.transpose(1, 2) / math.sqrt(8), -1) @ tokens
        return self.head(self.drop(mixed)).tanh().mean(1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [1, 7])
def test_a_linear_function_is_explained_exactly(rule: Rule, steps: int) -> None:
    """The gradient is the same everywhere: the map is weight times difference, whatever the steps."""
    x, base, weight = windows(3), windows(1, 5), windows(1, 9)[0]
    found = integrated_gradients(lambda w: 2.0 + (w * weight).flatten(1).sum(1), x, base, steps=steps, rule=rule)
    torch.testing.assert_close(found.values, ((x - base) * weight).sum(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.difference, ((x - base) * weight).flatten(1).sum(1), rtol=1e-12, atol=1e-12)
    assert float(found.gap.abs().max()) < 1e-11
    assert float(found.relative.max()) < 1e-11


def test_a_product_of_two_voxels_is_shared_by_hand() -> None:
    """f = a b from (0, 0): each voxel gets half of a b, the integral of t b a over t from 0 to 1."""
    x = torch.tensor([3.0, -2.0]).reshape(1, 1, 2, 1, 1, 1)
    found = integrated_gradients(lambda w: w.flatten(1).prod(1), x, torch.zeros_like(x), steps=1, rule="midpoint")
    assert found.values.flatten().tolist() == [-3.0, -3.0]


def test_a_cube_has_the_known_integral_and_midpoints_converge_to_it() -> None:
    """f = x^3 from 1 to 3: 26. Two Gauss points are exact; the midpoint rule misses by (b - a)^2 / (4 n^2) f'."""
    x, base = torch.full((1, 1, 1, 1, 1, 1), 3.0, dtype=torch.float64), torch.ones(1, 1, 1, 1, 1, 1).double()
    gauss = integrated_gradients(lambda w: (w**3).flatten(), x, base, steps=2)
    assert gauss.values.item() == pytest.approx(26.0, abs=1e-12)
    for steps in (1, 2, 4):
        found = integrated_gradients(lambda w: (w**3).flatten(), x, base, steps=steps, rule="midpoint")
        assert found.gap.item() == pytest.approx(-2.0 / steps**2, abs=1e-12)
        assert found.relative.item() == pytest.approx(2.0 / steps**2 / 26)


def test_a_nonlinear_net_is_complete_within_a_thousandth() -> None:
    net, x = Small(), windows(4)
    with torch.no_grad():
        outputs, zero = net.eval()(x), net(torch.zeros(1, *SHAPE).double())
    target = [0, 2, 1, 2]
    found = integrated_gradients(net, x, torch.zeros(1, *SHAPE).double(), target=target, steps=32)
    apart = outputs[range(4), target] - zero[0, target]
    torch.testing.assert_close(found.difference, apart)
    assert float((found.values.flatten(1).sum(1) - apart).abs().max()) < 1e-3
    torch.testing.assert_close(found.values.flatten(1).sum(1) - apart, found.gap)
    coarse = integrated_gradients(net, x, torch.zeros(1, *SHAPE).double(), target=target, steps=2)
    assert float(coarse.gap.abs().max()) > 10 * float(found.gap.abs().max())  # the gap is no formality


def test_batches_bound_what_is_held_and_do_not_change_the_answer() -> None:
    net, x = Small(), windows(3)
    base = windows(3, 4)
    one = integrated_gradients(net, x, base, target=1, steps=5, batch=1)
    assert max(net.seen) == 1
    net.seen.clear()
    some = integrated_gradients(net, x, base, target=1, steps=5, batch=4)
    assert max(net.seen) == 4
    assert sum(net.seen) == 3 * 5 + 3 + 3
    torch.testing.assert_close(one.values, some.values, rtol=1e-9, atol=1e-12)
    alone = integrated_gradients(net, x[1:2], base[1:2], target=1, steps=5)
    torch.testing.assert_close(alone.values[0], some.values[1], rtol=1e-9, atol=1e-12)


def test_the_module_is_left_as_it_was() -> None:
    net, x = Small(), windows(1)
    net.train()
    net.norm.eval()
    net.head.weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in net.parameters()]
    with torch.inference_mode():  # windows that a caller made there are no obstacle
        first = integrated_gradients(net, windows(1), torch.zeros(1, *SHAPE).double())
    second = integrated_gradients(net, x, torch.zeros(1, *SHAPE).double())
    assert torch.equal(first.values, second.values)  # dropout was off
    assert net.training
    assert net.drop.training
    assert not net.norm.training
    assert [parameter.requires_grad for parameter in net.parameters()] == before
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_voxel_that_is_not_looked_at_gets_nothing() -> None:
    x = windows(2)
    found = integrated_gradients(lambda w: (w[:, 0, 1:] ** 2).flatten(1).sum(1), x, torch.zeros(1, *SHAPE).double())
    assert not found.values[:, 0].any()
    assert bool((found.values[:, 1:] > 0).all())


def test_points_and_weights() -> None:
    for steps in (1, 3, 32):
        for rule in RULES:
            points, weights = path_points(steps, rule)
            assert weights.sum() == pytest.approx(1.0)
            assert weights.min() > 0
            assert points.min() > 0
            assert points.max() < 1
            assert (weights * points).sum() == pytest.approx(0.5)
    points, weights = path_points(4)
    assert (weights * points**7).sum() == pytest.approx(1 / 8)  # exact up to degree 2 n - 1


def test_refusals() -> None:
    x, zero = windows(2), torch.zeros(1, *SHAPE).double()
    net = Small()

    def refused(kind: type[Exception], word: str, call: object = net, **changes: object) -> None:
        given = {"x": x, "baseline": zero} | changes
        with pytest.raises(kind, match=word):
            integrated_gradients(call, **given)  # type: ignore[arg-type]

    refused(InputError, "not windows", x=x[:, 0])
    refused(InputError, "not windows", x=x[:0])
    refused(InputError, "another shape", baseline=zero[..., :2])
    refused(InputError, "another shape", baseline=zero.expand(3, *SHAPE))
    refused(InputError, "floating", x=x.long(), baseline=zero)
    refused(ConfigError, "0 to 2", target=3)
    refused(ConfigError, "0 to 2", target=-1)
    refused(InputError, "a target for each window", target=[0, 1, 2])
    refused(ConfigError, "step", steps=0)
    refused(ConfigError, "no such rule", rule="simpson")
    refused(ConfigError, "at least one point", batch=0)
    refused(ConfigError, "does not depend", call=lambda w: torch.ones(len(w), 3))
    refused(InputError, "not outputs", call=lambda w: w)
    refused(RunError, "not finite", call=lambda w: (w * math.inf).flatten(1).sum(1))


def test_baselines() -> None:
    mean = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    still = baseline_window("mean", (3, 4, 2, 5), mean=mean)
    assert still.shape == (1, 1, 3, 4, 2, 5)
    assert torch.equal(still[0, 0, ..., 3], torch.from_numpy(mean))
    moving = baseline_window("mean", (3, 4, 2, 1), mean=mean[..., None])
    assert torch.equal(moving[0, 0], torch.from_numpy(mean[..., None]))
    assert baseline_window("background", (1, 1, 1, 2), fill=-3).flatten().tolist() == [-3.0, -3.0]
    for kind, given, word in (
        ("mean", {}, "not known"),
        ("background", {}, "not known"),
        ("background", {"fill": math.nan}, "not known"),
        ("zero", {}, "no such baseline"),
    ):
        with pytest.raises(ConfigError, match=word):
            baseline_window(kind, (3, 4, 2, 5), **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="another grid"):
        baseline_window("mean", (3, 4, 3, 5), mean=mean)
    with pytest.raises(InputError, match="not finite"):
        baseline_window("mean", (3, 4, 2, 5), mean=mean * math.nan)


def test_averages_by_class_equal_those_of_all_windows_at_once() -> None:
    net, x = Small(), windows(6)
    zero = torch.zeros(1, *SHAPE).double()
    labels = ["face", "house", "face", "house", "house", "face"]
    target = [0 if label == "face" else 2 for label in labels]
    found = integrated_gradients(net, x, zero, target=target, steps=8)
    sums = MapSums(SHAPE[1:4])
    for low in (0, 2, 4):
        part = integrated_gradients(net, x[low : low + 2], zero, target=target[low : low + 2], steps=8)
        sums.add_all(labels[low : low + 2], part)
    assert sums.labels == ("face", "house")
    for label in sums.labels:
        rows = [i for i, name in enumerate(labels) if name == label]
        average = sums.averages(label)
        np.testing.assert_allclose(average.mean, found.values[rows].sum(-1).mean(0), atol=1e-12)
        np.testing.assert_allclose(average.absolute, found.values[rows].abs().sum(-1).mean(0), atol=1e-12)
        assert average.windows == 3
        assert average.gap == pytest.approx(float(found.gap[rows].abs().max()))
        assert average.difference == pytest.approx(float(found.difference[rows].mean()))
        assert abs(average.mean.sum() - average.difference) <= average.gap + 1e-12  # the map keeps completeness
        assert (average.absolute >= np.abs(average.mean) - 1e-12).all()


def test_sums_refuse_other_grids_and_values_that_are_not_finite() -> None:
    sums = MapSums((3, 4, 2))
    with pytest.raises(InputError, match="another grid"):
        sums.add("face", np.zeros((3, 4, 2)))
    with pytest.raises(InputError, match="not finite"):
        sums.add("face", np.full((3, 4, 2, 1), np.inf))
    with pytest.raises(InputError, match="no window was explained"):
        sums.averages("face")
    assert sums.labels == ()
