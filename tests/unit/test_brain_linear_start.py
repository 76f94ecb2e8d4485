"""Starting from a linear readout: the network then is that linear model, and training can only begin there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipelines.errors import ConfigError
from pipelines.fmri.baselines import fit_baseline
from pipelines.fmri.linear_start import can_start, start_linear
from pipelines.fmri.models.swift import ClassHead, Swift, SwiftConfig, SwiftNet

GRID = (7, 5, 3)


def net(outputs: int, **changes: Any) -> SwiftNet:
    sizes: dict[str, Any] = {"image": GRID, "frames": 2, "patch": (3, 2, 3, 1), "dim": 8, "depths": (1,), "heads": (2,)}
    torch.manual_seed(0)
    config = SwiftConfig(**(sizes | {"patch_maps": "own"} | changes))
    return SwiftNet(Swift(config), ClassHead(config.features, outputs))


def rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Voxels of a ragged mask with three classes in them."""
    generator = np.random.default_rng(seed)
    mask = generator.random(GRID) > 0.2
    y = np.arange(90) % 3
    x = generator.normal(0, 1, (90, int(mask.sum()))) + 0.7 * generator.normal(0, 1, (3, int(mask.sum())))[y]
    return x.astype(np.float32), y, mask, np.arange(90) // 15


def windows(x: np.ndarray, mask: np.ndarray, frames: int) -> torch.Tensor:
    volumes = np.zeros((len(x), *GRID), np.float32)
    volumes[:, mask] = x
    return torch.from_numpy(np.repeat(volumes[:, None, ..., None], frames, -1))


def test_the_network_is_shrinkage_lda() -> None:
    x, y, mask, groups = rows()
    module = net(3)
    start_linear(module, x, y, mask, kind="classification", groups=groups, seed=0)
    fresh = rows(1)[0]
    wanted = fit_baseline("lda", x, y, kind="classification", classes=3).scores(fresh)
    with torch.no_grad():
        found = module.eval()(windows(fresh, mask, 2)).double().numpy()
    centred = [one - one.mean(1, keepdims=True) for one in (found, wanted)]
    assert np.allclose(centred[0], centred[1], atol=1e-3 * np.abs(centred[1]).max())


def test_the_network_is_ridge_on_the_mean_of_its_volumes() -> None:
    x, _, mask, groups = rows()
    y = x[:, :4].sum(1) + 3.0
    module = net(1)
    start_linear(module, x, y, mask, kind="regression", groups=groups, seed=0)
    model = fit_baseline("ridge", x, y, kind="regression", groups=groups, seed=0)
    pair = windows(x[:20], mask, 1), windows(x[20:40], mask, 1)
    with torch.no_grad():
        found = module.eval()(torch.cat(pair, -1))[:, 0].double().numpy()
    assert np.allclose(found, (model.scores(x[:20]) + model.scores(x[20:40])) / 2, atol=1e-3 * np.abs(found).max())


def test_every_weight_can_still_learn() -> None:
    x, y, mask, groups = rows()
    module = net(3)
    start_linear(module, x, y, mask, kind="classification", groups=groups, seed=0)
    module.model.norm.requires_grad_(False)
    optimiser = torch.optim.SGD(module.parameters(), 1e-3)
    for _ in range(2):  # what feeds a silent map gets its gradient once the map has moved
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(windows(x, mask, 2)), torch.from_numpy(y)).backward()
        optimiser.step()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and "time_embed" not in name:
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "changes",
    [
        {"depths": (1, 1), "heads": (2, 2)},
        {"patch_maps": "shared"},
        {"patch": (3, 2, 3, 2)},
    ],
)
def test_models_that_cannot(changes: dict[str, Any]) -> None:
    module = net(3, **changes)
    assert not can_start(module)
    x, y, mask, groups = rows()
    with pytest.raises(ConfigError, match="start: this model cannot start from a linear one"):
        start_linear(module, x, y, mask, kind="classification", groups=groups, seed=0)


@pytest.mark.parametrize("attention", ["softmax", "selective_ssm"])
def test_other_mechanisms_start_there_too(attention: str) -> None:
    x, y, mask, groups = rows()
    module = net(3, attention=attention)
    start_linear(module, x, y, mask, kind="classification", groups=groups, seed=0)
    with torch.no_grad():
        right = (module.eval()(windows(x, mask, 2)).argmax(1).numpy() == y).mean()
    assert right > 0.9
