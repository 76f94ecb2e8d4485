"""Starting SwiFT from a linear readout of the training volumes: ours, where few scans of one brain are all there is.

With one stage and a map for each place of the grid, the model without its blocks is linear in the voxels: the mean over
tokens of maps and head. So its first channels can be set to a linear model in closed form (shrinkage LDA for classes,
ridge for numbers), its blocks to adding nothing, and training begins where the linear model ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from pipelines.errors import ConfigError
from pipelines.fmri.baselines import Kind, fit_baseline
from pipelines.fmri.models.swift import ClassHead, SwiftNet
from pipelines.fmri.models.swift_parts import Block, OwnPatchEmbed

__all__ = ["can_start", "start_linear"]


def can_start(module: SwiftNet) -> bool:
    """Whether a model has the parts that a linear start needs: one stage, own maps, patches of single volumes.

    Example:
        >>> from pipelines.fmri.models.swift import Swift, SwiftConfig
        >>> shape = {"image": (8, 8, 4), "frames": 2, "patch": (4, 4, 4, 1), "dim": 8}
        >>> one = SwiftConfig(**shape, depths=(1,), heads=(2,), patch_maps="own")
        >>> two = SwiftConfig(**shape, depths=(1, 1), heads=(2, 2), patch_maps="own")
        >>> can_start(SwiftNet(Swift(one))), can_start(SwiftNet(Swift(two)))
        (True, False)
    """
    config = module.model.config
    own = isinstance(module.model.patch_embed, OwnPatchEmbed)
    room = isinstance(module.output_head, ClassHead) and module.output_head.head.out_features <= config.dim
    return own and room and len(config.depths) == 1 and config.patch[3] == 1 and config.channels == 1


def start_linear(
    module: SwiftNet,
    x: NDArray[np.float32],
    y: NDArray[Any],
    mask: NDArray[np.bool_],
    *,
    kind: Kind,
    groups: NDArray[Any],
    seed: int,
) -> tuple[str, ...]:
    """Set a model to a linear one of the voxels of single volumes, exactly; every block then adds nothing.

    Args:
        module: changed in place.
        x: (N, V) voxels of the mask, a row for each training volume (or run).
        y: (N,) classes by number, or numbers as the network learns them.
        mask: (X, Y, Z), V True.
        kind: classification (shrinkage LDA) or regression (ridge).
        groups: (N,) run or subject of each row.
        seed: of the search for a penalty.

    Returns:
        Notes of the linear model.

    Raises:
        ConfigError: a model without the parts that this needs.

    Complexity: that of the linear model, O(N V min(N, V)).
    """
    embed, head = module.model.patch_embed, module.output_head
    if not (can_start(module) and isinstance(embed, OwnPatchEmbed) and isinstance(head, ClassHead)):
        raise ConfigError("this model cannot start from a linear one", where="start",
                          cure="one stage (--arch.depths [1]), --arch.patch_maps own, or --start random")  # fmt: skip
    classes = head.head.out_features if kind == "classification" else None
    fitted = fit_baseline("lda" if kind == "classification" else "ridge", x, y, kind=kind, classes=classes,
                          groups=groups, seed=seed)  # fmt: skip
    weights = fitted.weights / fitted.scale  # of raw voxels
    intercept = fitted.intercept - weights @ fitted.mean
    if kind == "classification":  # only differences between classes count
        weights, intercept = weights - weights.mean(0), intercept - intercept.mean()
    places = len(embed.maps)
    for number, row in enumerate(weights):
        volume = np.zeros(mask.shape, np.float64)
        volume[mask] = row
        with torch.no_grad():
            embed.maps[:, :, number] = _patches(torch.from_numpy(volume), embed).to(embed.maps) * places
            embed.bias[:, :, number] = 0
            head.head.weight[number] = F.one_hot(torch.tensor(number), module.model.config.dim).to(head.head.weight)
            head.head.bias[number] = float(intercept[number])
    _silence(module, len(weights))
    _compare(module, mask, weights, intercept)
    return fitted.notes


@torch.no_grad()
def _compare(
    module: SwiftNet, mask: NDArray[np.bool_], weights: NDArray[np.float64], intercept: NDArray[np.float64]
) -> None:
    """Refuse a mixer that still adds something."""
    config = module.model.config
    volume = torch.randn(1, 1, *config.image, 1, generator=torch.Generator().manual_seed(0))
    was = module.training
    found = module.eval()(volume.expand(-1, -1, -1, -1, -1, config.frames))[0].double().numpy()
    module.train(was)
    wanted = weights @ volume[0, 0, ..., 0].numpy()[mask].astype(np.float64) + intercept
    inside = np.abs(found - wanted).max() <= 1e-3 * max(1.0, float(np.abs(wanted).max()))
    if not inside:
        raise ConfigError("blocks with this mechanism add something whatever their last map is", where="start",
                          found=config.attention, cure="--start random")  # fmt: skip


def _patches(volume: torch.Tensor, embed: OwnPatchEmbed) -> torch.Tensor:
    """(places, voxels of a patch) of a volume, in the order that the maps have."""
    sizes = [count * edge for count, edge in zip(embed.grid, embed.patch[:3], strict=True)]
    more = [size - have for size, have in zip(sizes, volume.shape, strict=True)]
    padded = F.pad(volume, (0, more[2], 0, more[1], 0, more[0]))
    cut = padded.reshape(*(n for pair in zip(embed.grid, embed.patch[:3], strict=True) for n in pair))
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(len(embed.maps), -1)


def _silence(module: SwiftNet, channels: int) -> None:
    """Blocks that add nothing, and positions that leave the channels of the linear model alone."""
    with torch.no_grad():
        for block in module.modules():
            if isinstance(block, Block):
                for one in (*_last_linear(block.attn), *_last_linear(block.mlp)):
                    one.weight.zero_()
                    if one.bias is not None:
                        one.bias.zero_()
        for positions in module.model.pos_embeds:
            positions.pos_embed[:, :channels] = 0
            positions.time_embed[:, :channels] = 0


def _last_linear(part: nn.Module) -> list[nn.Linear]:
    """The map that a branch ends with."""
    found = [one for one in part.modules() if isinstance(one, nn.Linear)]
    return found[-1:]
