"""From scans and labels to a fitted model, and from it to what is stored."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.errors import ConfigError, InputError
from pipelines.fmri.material import Material, Shelf, identity, read_material
from pipelines.fmri.models.pretraining import pretraining_loss
from pipelines.fmri.models.swift import ClassHead, ContrastiveHead, Swift, SwiftConfig, SwiftNet
from pipelines.fmri.options import architecture, known_model
from pipelines.fmri.parts import Parts, parts_of
from pipelines.fmri.pretraining_data import ContrastiveWindows
from pipelines.fmri.training import Labelled, label_loss

if TYPE_CHECKING:
    from pipelines.fmri.pipeline import BrainModel

__all__ = ["Fitted", "build", "fit", "fit_parts", "from_official", "restore", "scores_of", "shelf_of"]

Indices = NDArray[np.int64]
#: Step sizes where none is asked for: after a linear start, which is to be kept, and of the paper's recipe.
_AFTER_LINEAR, _PAPER = 1e-4, 5e-5
_VOXELS = 1 << 23  # of windows that are answered at once


@dataclasses.dataclass
class Fitted:
    """A model that can answer.

    Attributes:
        name: of the model.
        module: in eval mode, on the device.
        kind: classification or regression; encoding alone where a checkpoint has no head for labels.
        level: what is told of, volumes or subjects.
        target: the column that is told.
        classes: names, empty for numbers.
        scale: mean and standard deviation of a number.
        tr: s between volumes in training; None where it was not known.
        voxel: edges of a voxel in mm in training; None where they were not known.
        mean: (X, Y, Z) mean of the training windows.
        training: how it was trained.
        trained: numbers of the runs that it learned from, see ``identity``.
        held: numbers of the runs that chose the epoch.
        notes: on the data that it was trained on.
        origin: where the weights come from.
    """

    name: str
    module: SwiftNet
    kind: Literal["classification", "regression", "encoding"]
    level: Literal["volume", "subject"]
    target: str
    classes: tuple[str, ...]
    scale: tuple[float, float]
    tr: float | None
    voxel: tuple[float, float, float] | None
    mean: Tensor
    training: dict[str, Any]
    trained: Tensor
    held: Tensor
    notes: tuple[str, ...] = ()
    origin: str = ""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Voxels that the model sees."""
        return self.module.model.config.image

    @property
    def frames(self) -> int:
        """Volumes of a window."""
        return self.module.model.config.frames

    def to_config(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and how to build the model that they are of."""
        tensors = {name: value.contiguous() for name, value in self.module.state_dict().items()}
        return tensors | {"mean": self.mean, "trained": self.trained, "held": self.held}, {
            "arguments": dataclasses.asdict(self.module.model.config),
            "kind": self.kind,
            "level": self.level,
            "target": self.target,
            "classes": list(self.classes),
            "scale": list(self.scale),
            "tr": self.tr,
            "voxel": None if self.voxel is None else list(self.voxel),
            "training": self.training,
            "fit_notes": list(self.notes),
        }

    def export_parts(self) -> tuple[nn.Module, dict[str, Tensor], str]:
        """The network on the CPU, and two example windows."""
        module = copy.deepcopy(self.module).cpu().eval()
        generator = torch.Generator().manual_seed(0)
        windows = torch.randn(2, 1, *self.grid, self.frames, generator=generator)
        return module, {"x": windows}, "scores"


def fit(m: BrainModel, data: Any) -> Fitted:
    """Train a model.

    Raises:
        InputError: no scans, or nothing that tells what is to be learned.
        ConfigError: an option that does not exist or does not fit.
    """
    material = read_material(m, data)
    parts, notes = parts_of(m, material)
    fitted = fit_parts(m, material, parts, shelf_of(m, material))
    fitted.notes = (*material.notes, *notes, *fitted.notes)
    return fitted


def shelf_of(m: BrainModel, material: Material) -> Shelf:
    """The windows of all runs."""
    return Shelf(material.runs, m.memory * 1_000_000)


def build(m: BrainModel, grid: tuple[int, int, int], frames: int, outputs: int) -> SwiftNet:
    """The network of a pipeline's options, for windows (1, X, Y, Z, frames)."""
    arch = architecture(m.model, m.size, m.arch)
    patch = tuple(min(p, size) for p, size in zip(arch.pop("patch"), (*grid, frames), strict=True))
    attention = m.attention or known_model(m.model).attention or "window_nd"
    config = SwiftConfig(image=grid, frames=frames, patch=patch, attention=attention, **arch)  # type: ignore[arg-type]
    module = SwiftNet(Swift(config), ClassHead(config.features, outputs))
    module.model.norm.requires_grad_(
        False
    )  # of the released layout, never applied: several processes would wait for it
    return module


def fit_parts(m: BrainModel, material: Material, parts: Parts, shelf: Shelf) -> Fitted:
    """Pre-train where that was asked for, and train on the training runs."""
    from pipelines.training.fitting import fit_module

    train, valid = material.of_runs(parts.train), material.of_runs(parts.valid)
    classes = len(material.classes)
    if not len(train):
        raise InputError("no labelled scan is left to learn from", where=material.name,
                         found=f"{len(material.runs)} runs, {len(parts.train)} of them to learn from")  # fmt: skip
    if m.augment.recombine > 0 and not classes:
        raise ConfigError("numbers have no classes to recombine", where="augment.recombine", cure="leave it out")
    if classes and len(np.unique(material.label[train])) < 2:
        raise InputError("the runs to learn from have one category alone", where=material.name,
                         found=material.classes[int(material.label[train][0])])  # fmt: skip
    torch.manual_seed(m.seed)
    module = build(m, material.runs[0].grid, material.frames, classes or 1)
    summary: dict[str, Any] = {}
    notes: list[str] = []
    if m.pretrain.kind != "none":
        summary["pretraining"], notes = _pretrain(m, module, material, parts)
    label, scale = _scaled(material, train)
    module, said = _started(m, module, material, parts, label)
    notes = [*notes, *said]
    zooms = np.sqrt((material.runs[0].affine[:3, :3] ** 2).sum(0)).tolist()
    fill = [float(run.standard.fill) for run in material.runs]
    sets = [
        Labelled(
            shelf, material.run[rows], material.start[rows], label[rows], material.frames,
            options=m.augment if rows is train else None, fill=fill, zooms=zooms,
        )
        for rows in (train, valid)
    ]  # fmt: skip
    m.run.say(f"{len(train):,} windows to learn from, {len(valid):,} to choose the epoch")
    twin = m.clone()
    twin.run = m.run.part("labels")
    gentle = module.model.config.depths == (1,) and any("training started from" in note for note in said)
    rate = _AFTER_LINEAR if gentle else _PAPER if m.size == "paper" else known_model(m.model).learning_rate
    result = fit_module(
        twin, module, label_loss(m.smoothing), sets[0], sets[1] if len(valid) else None, default_lr=rate
    )
    module.eval()
    summary |= dataclasses.asdict(result) | {"windows": len(train), "runs": len(parts.train)}
    numbers = [
        torch.tensor([identity(material.runs[one]) for one in which]).long() for which in (parts.train, parts.valid)
    ]
    return Fitted(
        m.model, module, material.kind, material.level, material.target, material.classes, scale,
        material.runs[0].tr, tuple(zooms) if material.runs[0].placed else None, _mean(shelf, material, train), summary,
        numbers[0], numbers[1], tuple(notes),
    )  # fmt: skip


def _started(
    m: BrainModel, module: SwiftNet, material: Material, parts: Parts, label: NDArray[Any]
) -> tuple[SwiftNet, list[str]]:
    """The network as training begins: from a linear readout where that is asked for or fits."""
    from pipelines.fmri.linear_start import can_start, start_linear
    from pipelines.fmri.peers import volume_rows

    if m.start == "random" or (m.start == "auto" and (m.pretrain.kind != "none" or not can_start(module))):
        return module, []
    x, y, groups, mask = volume_rows(material, parts.train, label)
    twin = copy.deepcopy(module)
    try:
        told = start_linear(twin, x, y, mask, kind=material.kind, groups=groups, seed=m.seed)  # type: ignore[arg-type]
    except (ConfigError, InputError) as error:
        if m.start == "linear":
            raise
        return module, [f"no linear start: {error}"]
    name = "shrinkage LDA" if material.kind == "classification" else "ridge"
    said = f"training started from {name} on {len(x):,} rows of {x.shape[1]:,} voxels"
    return twin, [said, *(f"linear start: {note}" for note in told)]


def _scaled(material: Material, train: Indices) -> tuple[NDArray[Any], tuple[float, float]]:
    """Labels as the network learns them: numbers standardised over the training windows."""
    if material.kind == "classification":
        return material.label, (0.0, 1.0)
    known = material.label[train]
    mean, sd = float(known.mean()), float(known.std())
    if not sd > 0:
        raise InputError("the number to be told never changes in training", where=material.target, found=mean)
    return (material.label - mean) / sd, (mean, sd)


def _mean(shelf: Shelf, material: Material, train: Indices) -> Tensor:
    """(X, Y, Z) mean of the training windows, each volume counted once."""
    total = np.zeros(material.runs[0].grid, np.float64)
    count = 0
    for run in np.unique(material.run[train]).tolist():
        for start in range(0, material.runs[run].volumes, 16):
            frames = min(16, material.runs[run].volumes - start)
            total += shelf.windows([run], [start], frames)[0, 0].sum(-1, dtype=np.float64)
            count += frames
    return torch.from_numpy((total / max(count, 1)).astype(np.float32))


def _pretrain(m: BrainModel, module: SwiftNet, material: Material, parts: Parts) -> tuple[dict[str, Any], list[str]]:
    """Learn from the volumes of the training runs alone, rest included; the weights stay in ``module``."""
    from pipelines.training.fitting import fit_module
    from pipelines.training.options import TrainOptions

    options = m.pretrain
    kind: Any = options.kind
    twin = m.clone(
        train=TrainOptions(
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            patience=0,
            schedule="cosine",
            warmup_steps=50,
            weight_decay=m.train.weight_decay,
            decoupled=True,
            clip_norm=1.0,
            workers=m.train.workers,
            checkpoint_minutes=m.train.checkpoint_minutes,
        )
    )
    twin.run = m.run.part("pretraining")
    runs = [material.runs[one] for one in parts.train]
    subjects = [material.recordings[one].subject or "one" for one in parts.train]
    windows = ContrastiveWindows(
        runs, subjects, material.frames, kind=kind, augment=m.augment, near=options.near, gap=options.gap,
        zooms=np.sqrt((runs[0].affine[:3, :3] ** 2).sum(0)).tolist(), batch_size=options.batch_size,
        memory=m.memory * 1_000_000,
    )  # fmt: skip
    net = SwiftNet(module.model, ContrastiveHead(module.model.config.features))
    loss = pretraining_loss(kind, temperature=options.temperature)
    result = fit_module(twin, net, loss, windows, None, default_lr=options.learning_rate)
    return dataclasses.asdict(result) | {"windows": len(windows)}, list(windows.notes)


@torch.inference_mode()
def scores_of(
    m: BrainModel, fitted: Fitted, shelf: Shelf, run: Sequence[int], start: Sequence[int], *, vectors: bool = False
) -> NDArray[np.float64]:
    """Logits (N, K) of windows, numbers (N, 1) in their own unit, or with ``vectors`` the encoder's answers (N, D)."""
    from pipelines.training.distributed import resolve_device

    device = resolve_device(m.device)
    module = fitted.module.to(device).eval()
    batch = max(1, min(256, _VOXELS // (int(np.prod(fitted.grid)) * fitted.frames)))
    found = []
    for low in range(0, len(run), batch):
        part = slice(low, low + batch)
        x = torch.from_numpy(shelf.windows(run[part], start[part], fitted.frames)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=m.precision == "bf16-mixed"):
            out = module.encode(x) if vectors else module(x)
        found.append(out.double().cpu().numpy())
    scores = np.concatenate(found) if found else np.zeros((0, 1))
    if vectors or fitted.kind != "regression":
        return scores if vectors or scores.shape[1] > 1 else np.concatenate([np.zeros_like(scores), scores], 1)
    return scores * fitted.scale[1] + fitted.scale[0]


def from_official(m: BrainModel, path: str | Path) -> Fitted:
    """A released checkpoint as a fitted model of subjects: classes are named 0 and 1, numbers are standard scores."""
    from typing import cast

    from pipelines.official import load_official
    from pipelines.training.distributed import resolve_device

    found = load_official("swift", path)
    module = cast(SwiftNet, found if isinstance(found, SwiftNet) else SwiftNet(cast(Swift, found)))
    head = isinstance(module.output_head, ClassHead) and isinstance(found, SwiftNet)
    kind: Any = "encoding" if not head else "regression" if m.target.kind == "regression" else "classification"
    outputs = module.output_head.head.out_features if head else 1  # type: ignore[union-attr]
    classes = tuple(str(one) for one in range(max(2, int(outputs)))) if kind == "classification" else ()
    nothing = torch.zeros(0, dtype=torch.int64)
    return Fitted(
        m.model, module.eval().to(resolve_device(m.device)), kind, "subject", m.target.column or "target", classes,
        (0.0, 1.0), None, None, torch.zeros(module.model.config.image), {"official": str(path)}, nothing, nothing, (),
        f"official weights of {Path(path).name}",
    )  # fmt: skip


def restore(m: BrainModel, tensors: dict[str, Tensor], config: dict[str, Any]) -> Fitted:
    """Rebuild the fitted state from stored tensors and configuration."""
    from pipelines.official import check_shapes
    from pipelines.training.distributed import resolve_device

    own = {name: value.float() for name, value in tensors.items() if name.startswith(("model.", "output_head."))}
    architecture = SwiftConfig(**config["arguments"])
    outputs = own["output_head.head.weight"].shape[0] if "output_head.head.weight" in own else None
    head = ContrastiveHead(architecture.features) if outputs is None else ClassHead(architecture.features, outputs)
    module = SwiftNet(Swift(architecture), head)
    module.load_state_dict(check_shapes(module, own, name=m.model))
    return Fitted(
        m.model,
        module.eval().to(resolve_device(m.device)),
        config["kind"],
        config["level"],
        config["target"],
        tuple(config["classes"]),
        (config["scale"][0], config["scale"][1]),
        config["tr"],
        None if config["voxel"] is None else tuple(config["voxel"]),
        tensors["mean"].float(),
        config["training"],
        tensors["trained"],
        tensors["held"],
        tuple(config["fit_notes"]),
        "a saved model",
    )
