"""From labelled series to a fitted classifier, and from it to probabilities; everything learned comes from training."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.classify.components import Components
from pipelines.classify.examples import Batch, Examples, loss, mixed_loss, tensors
from pipelines.classify.metrics import ConformalSets, fit_temperature
from pipelines.classify.options import architecture, model_info
from pipelines.classify.tokens import Tokeniser
from pipelines.classify.warps import copies
from pipelines.data.datasets.classification import Holdout, Standardiser, holdout
from pipelines.errors import ConfigError, InputError, WeightsError

if TYPE_CHECKING:
    from pipelines.classify.pipeline import Classifier
    from pipelines.data.formats.labelled_types import LabelledSeries

Floats = NDArray[np.float64]
_SCORED = 256  # series that go through a model at a time
_LEAST_STEPS = 16  # of an epoch: a small training part is passed several times between two looks at the held-out one


class SequenceModel(nn.Module):
    """A model of steps, fed from what ``collate`` gives: zeros where nothing was measured, and flags where asked."""

    def __init__(self, inner: nn.Module, *, flags: bool) -> None:
        super().__init__()
        self.inner, self.flags = inner, flags

    def forward(self, x: Tensor, observed: Tensor, valid: Tensor) -> Tensor:
        """Logits (B, C) of x (B, V, T), observed (B, V, T) and valid (B, T)."""
        rows = torch.cat([x, observed.to(x.dtype)], dim=1) if self.flags else x
        return self.inner(rows.transpose(1, 2), mask=valid)


@dataclasses.dataclass
class Fitted:
    """A classifier that can answer.

    Attributes:
        name: of the model.
        classes: C labels, in the order of the probabilities.
        variables: V names.
        scaler: of the variables, from the training part.
        module: the model; None for a baseline.
        baseline: one of ``baselines``; None for a trained model.
        tokeniser: of VSFormer.
        components: of VSFormer, added to the variables once these are standardised.
        sizes: what the model was built with, JSON-ready.
        temperature: logits are divided by it.
        sets: conformal sets from the held-out part of the training series; None without one.
        training: how training went, JSON-ready.
        notes: what was done while fitting, counted.
        origin: where the weights come from.
    """

    name: str
    classes: tuple[str, ...]
    variables: tuple[str, ...]
    scaler: Standardiser
    module: nn.Module | None = None
    baseline: Any = None
    tokeniser: Tokeniser | None = None
    components: Components | None = None
    sizes: dict[str, Any] = dataclasses.field(default_factory=dict)
    temperature: float = 1.0
    sets: ConformalSets | None = None
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origin: str = ""

    def check_variables(self, data: LabelledSeries) -> None:
        """Refuse series of another number of variables than those it was fitted on (InputError)."""
        if len(data.variables) != len(self.variables):
            raise InputError(
                "these series have other variables than the model",
                where=data.source,
                found=f"{len(data.variables)} ({', '.join(data.variables[:6])})",
                expected=f"{len(self.variables)} ({', '.join(self.variables[:6])})",
            )

    def scaled(self, data: LabelledSeries) -> list[NDArray[np.float32]]:
        """The series in the model's units.

        Raises:
            InputError: other variables than those it was fitted on.
        """
        self.check_variables(data)
        return [self.prepared(one) for one in data.series]

    def prepared(self, one: NDArray[np.floating]) -> NDArray[np.float32]:
        """A series (V, T) in the model's units, with the components where the model has some."""
        scaled = self.scaler.apply(one)
        return scaled if self.components is None else self.components.extend(scaled)

    def numbers(self, data: LabelledSeries) -> NDArray[np.int64]:
        """Classes of labelled series by number.

        Raises:
            InputError: no labels, or one that training never saw.
        """
        if data.labels is None:
            raise InputError("these series have no labels", where=data.source, cure="evaluate needs them, predict not")
        place = {label: number for number, label in enumerate(self.classes)}
        for name, label in zip(data.ids, data.labels, strict=True):
            if label not in place:
                raise InputError(
                    f"series '{name}' has a label that training never saw",
                    where=data.source,
                    found=label,
                    expected=", ".join(self.classes),
                    cure="fit on data that has all labels, or leave these series out",
                )
        return np.array([place[label] for label in data.labels], np.int64)

    @torch.no_grad()
    def logits(self, data: LabelledSeries) -> Floats:
        """(N, C) before the temperature; a baseline gives the logarithm of its probabilities."""
        series = self.scaled(data)
        if self.module is None:
            return np.log(np.clip(self.baseline.predict_proba(series), 1e-12, 1.0))
        examples = Examples(series, np.zeros(len(series), np.int64), self.tokeniser)
        device = next(self.module.parameters()).device
        parts = []
        for start in range(0, len(series), _SCORED):
            batch = examples.inputs(start, start + _SCORED)
            parts.append(self.module(**{name: value.to(device) for name, value in batch.items()}).double().cpu())
        return torch.cat(parts).numpy()

    def probabilities(self, data: LabelledSeries) -> Floats:
        """(N, C), calibrated by the temperature."""
        scaled = self.logits(data) / self.temperature
        weights = np.exp(scaled - scaled.max(1, keepdims=True))
        return weights / weights.sum(1, keepdims=True)

    # Stored ---------------------------------------------------------------------------------------------------------

    def to_config(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-ready configuration to store.

        Raises:
            ConfigError: a baseline, which has no weights of ours.
        """
        if self.module is None:
            raise ConfigError(
                f"{self.name} has no weights to keep", where="save", cure="keep its answers, or fit another model"
            )
        stored = {f"model.{name}": tensor for name, tensor in self.module.state_dict().items()}
        if self.tokeniser is not None:
            stored |= {f"tokens.{name}": value for name, value in tensors(self.tokeniser.arrays()).items()}
        if self.components is not None:
            stored |= tensors(
                {"components.matrix": self.components.matrix, "components.centre": self.components.centre}
            )
        if self.sets is not None:
            stored["sets.scores"] = torch.from_numpy(self.sets.scores)
        config = {
            "classes": list(self.classes),
            "variables": list(self.variables),
            "preprocessing": self.scaler.state(),
            "sizes": self.sizes,
            "temperature": self.temperature,
            "training": self.training,
            "fit_notes": list(self.notes),
        }
        return stored, config

    def export_parts(self) -> tuple[nn.Module, Batch, str]:
        """The module on the CPU in eval mode and two example inputs."""
        if self.module is None:
            raise ConfigError(f"{self.name} is no model that can be exported", where="export")
        module = copy.deepcopy(self.module).cpu().eval()
        length = max(2 * (self.tokeniser.motifs.length if self.tokeniser else 0), int(self.sizes["length"]))
        generator = np.random.default_rng(0)
        series = [generator.normal(size=(self.sizes["variables"], length)).astype(np.float32) for _ in range(2)]
        return module, Examples(series, np.zeros(2, np.int64), self.tokeniser).inputs(0, 2), "logits"


def training_part(data: LabelledSeries) -> NDArray[np.int64]:
    """Which examples may be learned from: the official training part where there is one, else all."""
    if data.split is None:
        return np.arange(len(data))
    return np.flatnonzero(np.array(data.split) == "train")


def check_labels(data: LabelledSeries) -> None:
    """Refuse what cannot be learned from: no labels, or a single class."""
    if data.labels is None:
        raise InputError("these series have no labels", where=data.source, cure="name the column with --columns.label")
    classes = data.classes
    if len(classes) < 2:
        found = f"one class, {', '.join(classes)}"
        raise InputError("there is nothing to tell apart", where=data.source, found=found, expected="2 or more")


def fit(c: Classifier, data: LabelledSeries) -> Fitted:
    """Train on the training part; temperature and conformal sets come from a held-out fifth of it, the epoch too.

    With ``refit`` the model is then trained once more, on the whole training part and for all epochs of the recipe.
    """
    check_labels(data)
    part = data.subset(training_part(data))
    check_labels(part)
    if model_info(c.model).baseline:
        return fit_baseline(c.model, part, seed=c.seed)
    split = _divided(c, part)
    again = c.refit and len(split.validation) > 0
    for note in (*split.notes, *part.notes):
        c.run.say(f"note: {note}")
    chosen = c.clone()
    chosen.run = c.run.part("choose") if again else c.run
    first = _trained(chosen, part, split.fit, split.validation)
    if len(split.validation):
        kept = part.subset(split.validation)
        truth = first.numbers(kept)
        first.temperature = fit_temperature(first.logits(kept), truth)
        first.sets = ConformalSets.fit(first.probabilities(kept), truth)
    fitted = _again(c, part, first) if again else first
    fitted.notes = (*split.notes, *part.notes, *fitted.notes)
    return fitted


def _again(c: Classifier, part: LabelledSeries, first: Fitted) -> Fitted:
    """The same model on the whole training part, calibrated by the one that had not seen the held-out series.

    It runs through all epochs, to the end of the falling step size: a fifth of some tens of series chooses among epochs
    with more noise than the last ones differ by.
    """
    twin = c.clone(train=dataclasses.replace(c.train, patience=0))
    twin.run = dataclasses.replace(c.run, before_training=None)
    every = np.arange(len(part))
    fitted = _trained(twin, part, every, every[:0])
    fitted.temperature, fitted.sets = first.temperature, first.sets
    fitted.training |= {"chosen_by": first.training}
    note = f"trained again on all {len(part)} series; the calibration is that of the first training"
    fitted.notes = (*fitted.notes, note)
    return fitted


def _trained(c: Classifier, part: LabelledSeries, fitting: NDArray[np.int64], held: NDArray[np.int64]) -> Fitted:
    """A model of some of the series; the others, if any, say after which epoch it is best."""
    numbers = np.array([part.classes.index(label) for label in part.labels or ()])
    scaler = Standardiser.fit([part.series[i] for i in fitting])
    fitted = Fitted(c.model, part.classes, part.variables, scaler)
    fitted.sizes = _sizes(part, fitting)
    arch = architecture(c.model, c.arch)
    if c.model == "vsformer":
        fitted.components = Components.fit([scaler.apply(part.series[i]) for i in fitting], arch["components"])
        fitted.sizes["variables"] += len(fitted.components)
    chosen = [fitted.prepared(part.series[i]) for i in fitting]
    versions, short = copies(chosen, arch["warps"], seed=c.seed)
    notes = [*scaler.notes, *([short] if short else [])]
    if c.model == "vsformer":
        sizes = {"length": arch["motif"], "count": arch["motifs"], "most": arch["tokens"]}
        fitted.tokeniser = Tokeniser.fit(chosen, numbers[fitting], **sizes, seed=c.seed, names=part.classes)
        notes += [*(fitted.components.notes if fitted.components else ()), *fitted.tokeniser.notes]
    torch.manual_seed(c.seed)
    module = fitted.module = build(c, fitted).to(_device(c))
    for note in notes:
        c.run.say(f"note: {note}")
    repeat = max(1, math.ceil(_LEAST_STEPS * c.train.batch_size / len(fitting)))
    examples = Examples(chosen, numbers[fitting], fitted.tokeniser, copies=versions, repeat=repeat)
    apart = [fitted.prepared(part.series[i]) for i in held]
    scored = Examples(apart, numbers[held], fitted.tokeniser) if apart else None
    fitted.training = _train(c, module, examples, scored)
    module.eval()
    fitted.notes = tuple(notes)
    return fitted


def _divided(c: Classifier, part: LabelledSeries) -> Holdout:
    """What is fitted and what chooses the epoch; nothing is held out where nothing can be, which a note says."""
    every = np.arange(len(part))
    single = part.groups is not None and len(set(part.groups)) < 2
    alone = part.groups is None and max(Counter(part.labels).values()) < 2
    if single or alone:
        why = "they are of one group" if single else "there is one of each class"
        said = f"no training series is held out, for {why}: all epochs are trained, probabilities are not calibrated"
        return Holdout(every, every[:0], (said,))
    found = holdout(part, every, 0.2, seed=c.seed)
    purpose = "to calibrate, before all are trained on" if c.refit else "to choose the epoch and to calibrate"
    said = f"{len(found.validation)} of {len(part)} training series are held out {purpose}"
    return found._replace(notes=(said, *found.notes))


def _sizes(part: LabelledSeries, fitting: NDArray[np.int64]) -> dict[str, Any]:
    lengths = part.lengths[fitting]
    return {
        "variables": len(part.variables),
        "classes": len(part.classes),
        "length": int(lengths.max()),
        "median_length": int(np.median(lengths)),
        "flags": bool(any(np.isnan(part.series[i]).any() for i in fitting)),
    }


def build(c: Classifier, fitted: Fitted) -> nn.Module:
    """The model of a classifier's options for the sizes that were found in the data."""
    arch, sizes = architecture(c.model, c.arch), fitted.sizes
    info = model_info(c.model)
    attention = c.attention or info.attention or ""
    if c.model == "vsformer":
        from pipelines.classify.models.vsformer import VSFormer

        if fitted.tokeniser is None:
            raise ConfigError("vsformer has no tokens", where="fit")
        known = ("d_model", "n_heads", "layers", "d_ff", "dropout", "form", "tsi", "token_dropout")
        return VSFormer(
            fitted.tokeniser.describe(),
            fitted.tokeniser.motifs.length,
            sizes["variables"],
            sizes["classes"],
            attention=attention,
            **{name: arch[name] for name in known},
        )
    channels = sizes["variables"] * (2 if sizes["flags"] else 1)
    if c.model == "lmuformer":
        from pipelines.classify.models.lmuformer import LMUFormer

        inner: nn.Module = LMUFormer(
            channels,
            sizes["classes"],
            dim=arch["d_model"],
            depth=arch["layers"],
            hidden=arch["d_ff"],
            theta=float(arch["theta"] or max(2, sizes["median_length"])),
            causal=arch["causal"],
        )
    else:
        from pipelines.classify.models.transformer import SeriesTransformer

        sized = {name: arch[name] for name in ("d_model", "n_heads", "layers", "d_ff", "dropout")}
        inner = SeriesTransformer(channels, sizes["classes"], length=sizes["length"], attention=attention, **sized)
    return SequenceModel(inner, flags=sizes["flags"])


def fit_baseline(name: str, part: LabelledSeries, *, seed: int) -> Fitted:
    """A baseline on the whole training part: it has nothing to choose on held-out series."""
    from pipelines.classify.baselines import Majority, MiniRocketRidge, NearestDTW

    made = {"minirocket": lambda: MiniRocketRidge(seed), "dtw": NearestDTW, "majority": Majority}
    scaler = Standardiser.fit(list(part.series))
    fitted = Fitted(name, part.classes, part.variables, scaler)
    fitted.baseline = made[name]()
    fitted.baseline.fit(fitted.scaled(part), fitted.numbers(part), len(part.classes))
    fitted.notes = tuple(getattr(fitted.baseline, "notes", ()))
    return fitted


def _device(c: Classifier) -> torch.device:
    from pipelines.training.distributed import resolve_device

    return resolve_device(c.device)


def _train(c: Classifier, module: nn.Module, examples: Examples, held: Examples | None) -> dict[str, Any]:
    from pipelines.training.fitting import fit_module

    alpha = architecture(c.model, c.arch).get("mixup")
    judged = mixed_loss(alpha) if alpha else loss
    result = fit_module(c, module, judged, examples, held, default_lr=model_info(c.model).learning_rate)
    summary = dataclasses.asdict(result)
    summary["series"] = {
        "train": examples.count,
        "copies": examples.count * (examples.versions - 1),
        "held_out": 0 if held is None else held.count,
    }
    return summary


def restore(c: Classifier, tensors: dict[str, Tensor], config: dict[str, Any]) -> Fitted:
    """Rebuild the fitted state from stored tensors and configuration."""
    from pipelines.official import check_shapes

    fitted = Fitted(
        c.model,
        tuple(config["classes"]),
        tuple(config["variables"]),
        Standardiser.from_state(config["preprocessing"]),
        sizes=dict(config["sizes"]),
        temperature=float(config["temperature"]),
        training=config["training"],
        notes=tuple(config["fit_notes"]),
        origin="a saved model",
    )
    if c.model == "vsformer":
        fitted.tokeniser, fitted.components = _restored(tensors, fitted.sizes)
    module = build(c, fitted)
    state = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    module.load_state_dict(check_shapes(module, state, name=c.model))
    fitted.module = module.to(_device(c)).eval()
    if "sets.scores" in tensors:
        fitted.sets = ConformalSets(tensors["sets.scores"].numpy())
    return fitted


def _restored(stored: dict[str, Tensor], sizes: dict[str, Any]) -> tuple[Tokeniser, Components]:
    arrays = {n.removeprefix("tokens."): t.numpy() for n, t in stored.items() if n.startswith("tokens.")}
    parts = [stored.get(f"components.{name}") for name in ("matrix", "centre")]
    if not arrays or parts[0] is None or parts[1] is None:
        raise WeightsError("these weights hold no tokens", where="vsformer", cure="fit the model anew")
    tokeniser = Tokeniser.restored(arrays, variables=sizes["variables"], classes=sizes["classes"])
    return tokeniser, Components(parts[0].numpy(), parts[1].numpy())


def test_part(data: LabelledSeries) -> LabelledSeries:
    """The official test part where there is one, which a note then says, else all."""
    if data.split is None or "test" not in data.split:
        return data
    chosen = np.flatnonzero(np.array(data.split) == "test")
    note = f"the {len(chosen)} of {len(data)} series of the official test part are labelled"
    return dataclasses.replace(data.subset(chosen), notes=(*data.notes, note))


def by_group(data: LabelledSeries, *, share: float, seed: int) -> LabelledSeries:
    """The same series with whole groups named the test part of a split."""
    found = holdout(data, np.arange(len(data)), share, seed=seed)
    split = np.full(len(data), "train", dtype=object)
    split[found.validation] = "test"
    return dataclasses.replace(data, split=tuple(split))
