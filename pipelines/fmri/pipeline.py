"""The public class of fMRI: what was seen, who was scanned, and which voxels say so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pipelines.base import Evaluation
from pipelines.data.datasets.brain_grid import GridOptions
from pipelines.data.datasets.brain_types import StudyOptions
from pipelines.errors import ConfigError
from pipelines.fitted import FittedPipeline
from pipelines.fmri.augment_options import AugmentOptions
from pipelines.fmri.options import (
    BASELINES,
    MODELS,
    PLAIN,
    TRAINING,
    ArchOptions,
    PretrainOptions,
    SignalOptions,
    SplitOptions,
    TargetOptions,
    WindowOptions,
    architecture,
    check_values,
    signal_of,
)
from pipelines.model_list import check_attention
from pipelines.training.options import TrainOptions
from pipelines.values import as_options

if TYPE_CHECKING:
    from pipelines.fmri.engine import Fitted  # noqa: F401 - the state named below
    from pipelines.fmri.maps import Maps
    from pipelines.fmri.result import Predictions, Vectors

__all__ = ["BrainModel"]


class BrainModel(FittedPipeline["Fitted"]):
    """Tell from 4-D brain scans what was seen, or whom they are of, and draw the voxels that say so.

    SwiFT: raw volumes are cut into patches, attention runs within shifted windows over space and time, neighbours in
    space are merged. Runs are NIfTI files, folders of them, BIDS data sets and derivatives, or HCP, ABCD and UK Biobank
    folders; a scan is never loaded whole. With events beside the runs the category of each volume is told, with
    ``target.column`` a column of the table of people. Nothing is cut, padded, resampled or left out unsaid.

    Args:
        model: swift.
        size: small (for few voxels and few scans, one subject or one template), or paper.
        attention: any mechanism for grids of four axes, or for sequences, in the place of window_nd.
        arch: size and shape of the model (an ArchOptions, or a dict of its fields).
        study: which runs of a data set (a StudyOptions, or a dict).
        signal: what is done to the numbers of a run (a SignalOptions, or a dict).
        grid: the voxels and the repetition time that the model sees (a GridOptions, or a dict).
        target: what is to be told (a TargetOptions, or a dict).
        window: what the model sees at once (a WindowOptions, or a dict).
        split: what is learned from and measured on (a SplitOptions, or a dict).
        pretrain: learning by contrast from the scans alone, before labels (a PretrainOptions, or a dict).
        augment: how windows are changed while training (an AugmentOptions, or a dict); by default they are not.
        start: what training begins from: linear = a linear model of the voxels in closed form (one stage, own maps),
            random, or auto = linear where that is possible and nothing was pre-trained.
        smoothing: share of each label that is spread over all classes while training.
        baselines: measured beside the model: svm, logistic, lda, ridge (on voxels), connectome (on regions, of
            subjects), majority.
        atlas: a NIfTI file of numbered regions for connectomes; by default regions are learned from the training runs.
        tr: repetition time in s, where files do not say it or say it wrongly.
        memory: megabytes of prepared scans that are kept in memory; others are read each time.
        limit_gb: gigabytes that a compressed file may unpack to.
        train: how the model is fitted (a TrainOptions, or a dict of its fields).
        device: auto, cpu, cuda, cuda:N or mps.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
        seed: of weights, order, changes and splits.
        threads: CPU threads; default what torch takes.

    Raises:
        ConfigError: when used, for a model or option that does not exist.

    Example:
        >>> BrainModel(target={"column": "sex"}).target.column
        'sex'
    """

    domain: ClassVar[str] = "fmri"
    engine: ClassVar[str] = "pipelines.fmri.engine"
    summary: ClassVar[str] = "Tell from 4-D brain scans (NIfTI, BIDS, HCP) what was seen, or whom they are of."
    verbs: ClassVar[Mapping[str, str]] = {"encode": "encode", "explain": "explain"}
    endings: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "predict": (".json", ".jsonl", ".csv", ".tsv", ".parquet"),
        "encode": (".npz", ".npy", ".csv", ".jsonl", ".parquet"),
        "explain": (".nii.gz", ".nii", ".json"),
    }
    together: ClassVar[frozenset[str]] = frozenset({"predict", "encode", "explain"})
    call_time: ClassVar[frozenset[str]] = frozenset(
        {
            "study",
            "window",
            "split",
            "pretrain",
            "augment",
            "start",
            "smoothing",
            "baselines",
            "atlas",
            "tr",
            "grid",
            "memory",
            "limit_gb",
            "train",
        }
    )

    def __init__(
        self,
        *,
        model: str = "swift",
        size: str = "small",
        attention: str | None = None,
        arch: ArchOptions = ArchOptions(),  # noqa: B008 - frozen
        study: StudyOptions = StudyOptions(),  # noqa: B008 - frozen
        signal: SignalOptions = SignalOptions(),  # noqa: B008 - frozen
        grid: GridOptions = GridOptions(),  # noqa: B008 - frozen
        target: TargetOptions = TargetOptions(),  # noqa: B008 - frozen
        window: WindowOptions = WindowOptions(),  # noqa: B008 - frozen
        split: SplitOptions = SplitOptions(),  # noqa: B008 - frozen
        pretrain: PretrainOptions = PretrainOptions(),  # noqa: B008 - frozen
        augment: AugmentOptions = PLAIN,
        start: Literal["auto", "linear", "random"] = "auto",
        smoothing: float = 0.0,
        baselines: tuple[str, ...] = BASELINES,
        atlas: str | None = None,
        tr: float | None = None,
        memory: int = 1000,
        limit_gb: float = 64.0,
        train: TrainOptions = TRAINING,
        device: str = "auto",
        precision: str = "32-true",
        seed: int = 2021,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.size = size
        self.attention = attention
        self.arch = as_options(ArchOptions, arch, "arch")
        self.study = as_options(StudyOptions, study, "study")
        self.signal = as_options(SignalOptions, signal, "signal")
        self.grid = as_options(GridOptions, grid, "grid")
        self.target = as_options(TargetOptions, target, "target")
        self.window = as_options(WindowOptions, window, "window")
        self.split = as_options(SplitOptions, split, "split")
        self.pretrain = as_options(PretrainOptions, pretrain, "pretrain")
        self.augment = as_options(AugmentOptions, augment, "augment")
        self.start: Literal["auto", "linear", "random"] = start
        self.smoothing = smoothing
        self.baselines = baselines
        self.atlas = atlas
        self.tr = tr
        self.memory = memory
        self.limit_gb = limit_gb
        self.train = as_options(TrainOptions, train, "train")
        self.device = device
        self.precision = precision
        self.seed = seed
        self.threads = threads

    def fit(self, data: Any) -> Self:
        """Learn from labelled runs what is to be told.

        Args:
            data: a name of the catalogue, a NIfTI file, a folder or archive (BIDS, a derivative, HCP, ABCD, UK Biobank,
                prepared frames), or a list of files, nibabel images or arrays (X, Y, Z, T).

        Raises:
            InputError: scans that cannot be read or do not go together, or nothing that tells what is to be learned.
            ConfigError: an option that does not exist or does not fit.
        """
        from pipelines.fmri.engine import fit

        self._check()
        self.start_torch()
        self._fresh()
        self._state, self._fitted = fit(self, data), True
        return self

    def predict(self, inputs: Any) -> Predictions:
        """The category of each volume with its block and run, or the class or number of each run and subject.

        Args:
            inputs: as :meth:`fit`; labels are shown beside the answers where the data have them.

        Raises:
            InputError: no scan could be read.
        """
        from pipelines.fmri.predict import predict

        self._ready("predict")
        return predict(self, inputs)

    def encode(self, inputs: Any) -> Vectors:
        """One vector for each scan, the mean over its windows: for a linear model of your own or similarity.

        Args:
            inputs: as :meth:`fit`, without labels.

        Raises:
            InputError: no scan could be read.
        """
        from pipelines.fmri.predict import encode

        self._ready("encode")
        return encode(self, inputs)

    def explain(
        self, inputs: Any, *, labels: tuple[str, ...] = (), steps: int = 32, baseline: str = "mean", windows: int = 64
    ) -> Maps:
        """Which voxels speak for a class: integrated gradients on the grid of each scan, as a BIDS derivative.

        Args:
            inputs: as :meth:`fit`.
            labels: classes to explain; by default all. A window is explained where its true class, or without labels
                its predicted class, is one of them.
            steps: points of the integral.
            baseline: what windows are compared with: mean (of the training windows) or background.
            windows: most windows of a class and run, evenly over time; the number is written beside each map.

        Raises:
            InputError: no scan could be read, or no window is of these classes.
            ConfigError: no such class or baseline, steps or windows below 1.
        """
        from pipelines.fmri.explaining import explain

        self._ready("explain")
        return explain(self, inputs, labels, steps, baseline, windows)

    # They answer with what is fitted or ships, and never fit on their inputs.
    predict.fits_itself = True  # type: ignore[attr-defined]
    encode.fits_itself = True  # type: ignore[attr-defined]
    explain.fits_itself = True  # type: ignore[attr-defined]

    def evaluate(self, data: Any) -> Evaluation:
        """Measure on runs that the model was not trained on, beside linear models on voxels, connectomes and chance.

        Args:
            data: as :meth:`fit`. With ``split.folds`` the model is fitted anew for each fold.

        Raises:
            NothingToMeasure: every run was learned from.
        """
        from pipelines.fmri.evaluation import evaluate, evaluate_folds

        self._check()
        if self.split.folds:
            self.start_torch()
            self._fresh()
            return evaluate_folds(self, data)
        self._ready("evaluate")
        return evaluate(self, data)

    def demo(self) -> tuple[Evaluation, Predictions]:
        """Measure the shipped model on the embedded runs that it has not seen, and follow one of them over time."""
        from pipelines.fmri.predict import unseen

        self._ready("demo")
        twin = self._as_it_is()
        measured = twin.evaluate("demo")
        return measured, twin.predict(unseen(twin, "demo"))

    @classmethod
    def from_official(cls, path: str | Path, **params: Any) -> Self:
        """A fitted pipeline around a released SwiFT checkpoint: windows of 20 volumes, scans cut about the centre.

        The released checkpoints hold no names of classes and no statistics of numbers: classes are 0 and 1, and numbers
        standard scores (``target={"kind": "regression"}``). A checkpoint of pre-training only encodes.

        Raises:
            WeightsError: a file that is not such a checkpoint.
        """
        from pipelines.fmri import engine

        given = {"size": "paper", "grid": GridOptions(fit="centre")} | params
        pipeline = cls(**given)
        pipeline._check()
        pipeline.start_torch()
        pipeline._state, pipeline._fitted = engine.from_official(pipeline, path), True
        return pipeline

    @classmethod
    def check_kit(cls) -> dict[str, Any]:
        """A short run on four embedded runs of the whole brain at 25 mm."""
        import dataclasses

        from pipelines.fmri.material import open_source

        study = open_source(cls(), "haxby-brain")
        few = dataclasses.replace(study, recordings=study.recordings[:4])
        params = {
            "arch": ArchOptions(dim=8, depths=(1,), heads=(2,), patch=(5, 5, 5, 1)),
            "split": SplitOptions(test=0.25, valid=0.25),
            "baselines": ("lda", "majority"),
            "train": TrainOptions(epochs=1, batch_size=64, patience=0),
        }
        return {"params": params, "data": few, "inputs": dataclasses.replace(study, recordings=study.recordings[3:4])}

    def shipped_name(self) -> str | None:
        """The model of the embedded slices, where nothing about it is changed."""
        usual = self.model == "swift" and self.size == "small" and self.attention in (None, "window_nd")
        plain = self.arch == ArchOptions() and self.target == TargetOptions() and self.window.frames in (None, 5)
        return "swift_haxby" if usual and plain and self.signal == SignalOptions() else None

    def _as_it_is(self, **changes: Any) -> Self:
        """The same fitted pipeline, of which a later ``fit`` changes nothing."""
        twin = self.clone(**changes)
        twin._state, twin._fitted, twin.run = self.state, True, self.run
        return twin

    def _fresh(self) -> None:
        """Forget what was fitted, so that scans are not held against an older model's grid."""
        self._fitted = False

    def _check(self) -> None:
        architecture(self.model, self.size, self.arch)
        check_values(self.target, self.window, self.split, self.pretrain)
        signal_of(self.signal, volumes=not self.target.column)
        check_attention(MODELS, self.model, self.attention)
        unknown = [name for name in self.baselines if name not in BASELINES]
        if unknown:
            raise ConfigError(
                "no such baseline", where="baselines", found=", ".join(unknown), expected=", ".join(BASELINES)
            )
        if self.start not in ("auto", "linear", "random"):
            raise ConfigError("no such start", where="start", found=self.start, expected="auto, linear or random")
        if not 0 <= self.smoothing < 1:
            raise ConfigError("out of range", where="smoothing", found=self.smoothing, expected="0 to below 1")
        if self.tr is not None and not 0 < self.tr < 1000:
            raise ConfigError("no repetition time", where="tr", found=self.tr, expected="seconds above 0")
        if isinstance(self.memory, bool) or not isinstance(self.memory, int) or self.memory < 0:
            raise ConfigError("out of range", where="memory", found=self.memory, expected="megabytes from 0")
        if not self.limit_gb > 0:
            raise ConfigError("out of range", where="limit_gb", found=self.limit_gb, expected="gigabytes above 0")
        self.augment.validate()
        self.train.validate()
