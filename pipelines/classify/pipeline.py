"""The public class of classification: labelled series go in, calibrated labels and the shapes that told come out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pipelines.base import Evaluation
from pipelines.classify.options import MODELS, TRAINING, ArchOptions, SeriesColumns, architecture, parse_protocol
from pipelines.errors import ConfigError
from pipelines.fitted import FittedPipeline
from pipelines.model_list import check_attention
from pipelines.training.options import TrainOptions
from pipelines.values import as_options

if TYPE_CHECKING:
    from pipelines.classify.engine import Fitted  # noqa: F401 - the parameter of the base class
    from pipelines.classify.result import Classification
    from pipelines.classify.streaming import Stream
    from pipelines.data.formats.labelled_types import LabelledSeries


class Classifier(FittedPipeline["Fitted"]):
    """Classify whole time series, of one or many variables and of any lengths, with calibrated probabilities.

    Args:
        model: vsformer, lmuformer, transformer, or a baseline: minirocket, dtw, majority.
        attention: mechanism of a model with a mixer (vsformer, transformer); default the model's own.
        protocol: auto (the official split, else ten folds by group, else five stratified folds), official, or folds:N.
        interval: probability that a conformal set of labels holds the true one.
        columns: which column of a long table plays which part (a SeriesColumns, or a dict of its fields).
        arch: size and shape of the model (an ArchOptions, or a dict of its fields).
        train: how the model is fitted (a TrainOptions, or a dict of its fields).
        refit: train once more, on all training series and through all epochs, once held-out ones have calibrated.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
        seed: of weights, order, dropout and the held-out series.
        threads: CPU threads; default what torch takes.

    Raises:
        ConfigError: in ``fit``, for a model, protocol or option that does not exist.

    Example:
        >>> Classifier(model="transformer", attention="softmax").model
        'transformer'
    """

    domain: ClassVar[str] = "classify"
    engine: ClassVar[str] = "pipelines.classify.engine"
    summary: ClassVar[str] = "Classify time series (.ts, .arff, .tsv, NPZ, tables): labels, probabilities, shapes."
    endings: ClassVar[Mapping[str, tuple[str, ...]]] = {"predict": (".csv", ".parquet", ".json")}
    call_time: ClassVar[frozenset[str]] = frozenset({"protocol", "interval", "columns", "train", "refit"})
    verbs: ClassVar[Mapping[str, str]] = {"stream": "stream"}
    archives: ClassVar[bool] = True
    streams: ClassVar[Mapping[str, str]] = {
        "stream": "pipelines classify fit --model lmuformer --data LABELLED --output model/"
    }

    def __init__(
        self,
        *,
        model: str = "vsformer",
        attention: str | None = None,
        protocol: str = "auto",
        interval: float = 0.9,
        columns: SeriesColumns = SeriesColumns(),  # noqa: B008 - frozen
        arch: ArchOptions = ArchOptions(),  # noqa: B008 - frozen
        train: TrainOptions = TRAINING,
        refit: bool = True,
        device: str = "auto",
        precision: str = "32-true",
        seed: int = 2021,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.attention = attention
        self.protocol = protocol
        self.interval = interval
        self.columns = as_options(SeriesColumns, columns, "columns")
        self.arch = as_options(ArchOptions, arch, "arch")
        self.train = as_options(TrainOptions, train, "train")
        self.refit = refit
        self.device = device
        self.precision = precision
        self.seed = seed
        self.threads = threads

    def fit(self, data: Any) -> Self:
        """Learn from labelled series: from the official training part where there is one, else from all.

        Args:
            data: a path, the name of a set (BasicMotions, watch), a long table, an sktime container or (X, y).

        Raises:
            InputError: series that cannot be used as they are.
            ConfigError: an option that does not exist or does not fit.
        """
        from pipelines.classify import engine

        self._check()
        self.start_torch()
        self._state = engine.fit(self, self.read(data))
        self._fitted = True
        return self

    def predict(self, inputs: Any) -> Classification:
        """Label every series, with probabilities, conformal sets and, for vsformer, the shapes that told.

        Args:
            inputs: as for :meth:`fit`; labels are not needed. Of a set with an official split the test part is taken.
        """
        from pipelines.classify.engine import test_part
        from pipelines.classify.predict import predict

        self.require_fitted("predict")
        self._check()
        self.start_torch()
        return predict(self, test_part(self.read(inputs)))

    def evaluate(self, data: Any) -> Evaluation:
        """Measure by the protocol: every test series, beside the baselines fitted on the same training series.

        Args:
            data: as for :meth:`fit`. With folds a model is fitted anew on the training part of each.
        """
        from pipelines.classify.evaluation import evaluate

        self.require_fitted("evaluate")
        self._check()
        self.start_torch()
        return evaluate(self, self.read(data))

    def evaluate_archive(self, folder: str | Path, *, seeds: int = 1) -> Evaluation:
        """Fit and evaluate anew on every set of a UEA or UCR archive folder, and rank the classifiers over the sets.

        Args:
            folder: holds NAME_TRAIN.ts and NAME_TEST.ts (or .arff, .tsv, packed or not), in folders of their own or
                not, or NPZ files with a split. The classifier itself stays unfitted.
            seeds: fits a set; the median of each set counts.

        Raises:
            InputError: no folder, no set in it, or none that can be evaluated; a set that cannot is left out and named.
            ConfigError: an option that does not exist or does not fit, fewer than one seed.

        Example:
            >>> Classifier(model="majority").evaluate_archive("no/such/folder")
            Traceback (most recent call last):
            pipelines.errors.InputError: no/such/folder: no such folder. ...
        """
        from pipelines.classify.archive import evaluate_archive

        if seeds < 1:
            raise ConfigError("must be at least 1", where="seeds", found=seeds)
        self._check()
        return evaluate_archive(self, Path(folder), seeds)

    def stream(self) -> Stream:
        """Classify step by step, in constant memory: push one row of values at a time (lmuformer, causal).

        Raises:
            ConfigError: nothing is fitted, or a model that needs the whole series.

        Example:
            >>> Classifier(model="lmuformer").stream()
            Traceback (most recent call last):
            pipelines.errors.ConfigError: Classifier.stream: there is no fitted model. ...
        """
        from pipelines.classify.streaming import Stream

        self.require_fitted("stream")
        return Stream(self.state, self.columns)

    def demo(self) -> tuple[Evaluation, Classification]:
        """Fit on eight of ten subjects' shoulder exercises under a smartwatch, and label those of the other two."""
        from pipelines.classify.engine import by_group

        data = self.read("watch")
        self.run.say(f"{data.source}: {len(data)} series of {len(set(data.groups or ()))} subjects")
        split = by_group(data, share=0.2, seed=self.seed)
        if not self.is_fitted:
            self.fit(split)
        twin = self.clone(protocol="official")
        twin._state, twin._fitted = self.state, True
        return twin.evaluate(split), self.predict(split)

    @classmethod
    def from_official(cls, path: str | Path, **params: Any) -> Self:
        """Refuse: the released LMUFormer weights name neither classes nor scaling, and VSFormer has none.

        ``pipelines.load_official("lmuformer", path)`` opens the model itself.
        """
        raise ConfigError(
            "an official checkpoint holds no labels and no scaling",
            where=path,
            cure='open the model with pipelines.load_official("lmuformer", path), or fit one of ours',
        )

    @classmethod
    def check_kit(cls) -> dict[str, Any]:
        """A short run on motion data."""
        params = {"train": TrainOptions(epochs=2, batch_size=16), "arch": ArchOptions(d_model=16, d_ff=16, layers=1)}
        return {"params": params, "data": "BasicMotions", "inputs": "BasicMotions"}

    def read(self, data: Any) -> LabelledSeries:
        """The labelled series behind a path, a name, a table, an sktime container or arrays."""
        from pipelines.classify.reading import read

        return read(data, self.columns)

    def _check(self) -> None:
        architecture(self.model, self.arch)
        parse_protocol(self.protocol)
        if not 0.0 < self.interval < 1.0:
            raise ConfigError("must lie between 0 and 1", where="interval", found=self.interval, expected="0.9")
        check_attention(MODELS, self.model, self.attention)
        self.train.validate()

    @property
    def has_weights(self) -> bool:
        """Whether there is anything to save: baselines have no weights of ours."""
        return self.is_fitted and self.state.module is not None
