"""The part of an sktime classifier that is no model's: sktime's contract on one side, our pipeline on the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sktime.classification.base import BaseClassifier
from sktime.utils.warnings import warn

from pipelines.base import Run
from pipelines.classify.pipeline import Classifier
from pipelines.data.formats.labelled_types import LabelledSeries
from pipelines.errors import ConfigError, InputError, Interrupted

if TYPE_CHECKING:
    from pipelines.classify.result import Shape

__all__ = ["NeuralClassifier", "plain"]


class NeuralClassifier(BaseClassifier):
    """A classifier of this library behind sktime's interface.

    Subclasses give `_pipeline` (the unfitted pipeline of their settings); every constructor argument is only stored.

    Attributes after fit: `notes_` (everything that was done to the data, counted; each is also a warning, but for what
    happens at every fit), `training_` (epochs, steps, losses), `temperature_`, `classifier_` (the pipeline).
    """

    _tags: ClassVar[dict[str, Any]] = {
        "authors": ["attention-pipelines"],
        "maintainers": ["attention-pipelines"],
        "python_dependencies": ["torch", "lightning", "stumpy"],
        "X_inner_mtype": ["df-list", "numpy3D"],
        "y_inner_mtype": "numpy1D",
        "capability:multivariate": True,
        "capability:unequal_length": True,
        "capability:missing_values": True,
        "capability:predict_proba": True,
        "capability:multioutput": False,
        "capability:categorical_in_X": False,
        "capability:random_state": True,
        "property:randomness": "derandomized",
    }

    # scikit-learn's searches keep this on the estimator while it is fitted; sktime's fit would delete it.
    _parent_callback_ctx: ClassVar[Any] = None

    classes_: NDArray[Any]
    n_classes_: int
    random_state: int | np.random.RandomState | None
    verbose: bool

    # What a subclass says ---------------------------------------------------------------------------------------

    def _pipeline(self, seed: int) -> Classifier:
        """The pipeline of the settings, not fitted."""
        raise NotImplementedError

    # sktime's private methods -----------------------------------------------------------------------------------

    def _fit(self, X: Any, y: NDArray[Any]) -> Self:
        from pipelines.training.randomness import isolated

        data = _labelled(X, y)
        classifier = self._pipeline(_seed(plain(self.random_state)))
        if self.verbose:
            from pipelines.progress import Progress

            classifier.run = Run(progress=Progress())
        try:
            with isolated():  # the pipeline seeds torch's global generator, which is the caller's
                classifier.fit(data)
        except Interrupted as stop:
            raise Interrupted(
                f"{type(self).__name__}.fit was stopped; nothing of it is kept. Cure: call fit again.", stop.signum
            ) from stop
        classifier.run = Run()  # what shows progress holds a stream, which cannot be pickled
        state = classifier.state
        self.classifier_ = classifier
        self.training_ = dict(state.training)
        self.temperature_ = state.temperature
        self._variables = data.variables if isinstance(X, list) else None
        self.notes_ = tuple(dict.fromkeys([*state.notes, *self._short(data)]))
        # What happens at every fit is documented: a warning each time would hide the others.
        usual = "training series are held out to calibrate", "trained again on all", "whitened principal components"
        self._warn(note for note in self.notes_ if not any(text in note for text in usual))
        return self

    def _predict_proba(self, X: Any) -> NDArray[np.float64]:
        return self._probabilities(self._read(X))

    # What sktime does not ask for ---------------------------------------------------------------------------------

    def predict_sets(self, X: Any, level: float = 0.9) -> pd.DataFrame:
        """Sets of labels that hold the true one with a chosen probability, if X is like the training series.

        Split conformal prediction from the held-out training series. Where these are too few for the level, which is
        warned of, a set holds every label; no set is empty.

        Parameters
        ----------
        X : sktime panel of n series
            As for `predict`.
        level : float, default=0.9
            Probability that a set holds the true label.

        Returns
        -------
        pd.DataFrame of shape (n, n_classes_)
            Whether a label is in the set of a series, in the order of X; the columns are `classes_`.

        Raises
        ------
        ConfigError
            A level that is no probability, or several outputs.
        InputError
            Series that cannot be used as they are.

        Examples
        --------
        >>> from sktime.datasets import load_unit_test
        >>> from pipelines.classify.sktime import VSFormerClassifier
        >>> X, y = load_unit_test(split="train")
        >>> classifier = VSFormerClassifier(d_model=8, epochs=1, random_state=0).fit(X, y)
        >>> classifier.predict_sets(X, level=0.5).shape
        (20, 2)
        """
        if not 0.0 < level < 1.0:
            raise ConfigError("must lie between 0 and 1", where="level", found=level, expected="0.9")
        data = self._asked(X, "predict_sets")
        inside = np.ones((len(data), self.n_classes_), dtype=bool)
        if self.n_classes_ > 1:
            sets = self.classifier_.state.sets
            probabilities = self._probabilities(data)
            if sets is not None:
                inside = sets(probabilities, level)
            if sets is None or not np.isfinite(sets.threshold(level)):
                count = 0 if sets is None else len(sets.scores)
                self._warn([f"{count} held-out series are too few for {100 * level:g} % sets, which hold every label"])
        return pd.DataFrame(inside, columns=self.classes_)

    def explain(self, X: Any) -> list[list[Shape]]:
        """The motifs that told: those whose absence lowers the log-odds of the predicted label most, at most three.

        Parameters
        ----------
        X : sktime panel of n series
            As for `predict`.

        Returns
        -------
        list of n lists of pipelines.classify.result.Shape
            Each with `variable` (its number; those after the last variable are components, in units of their own
            deviation), `begin` (its first step), `values` (the motif in the units of X, laid
            over its match), `prior`, `weight` (the fall in log-odds without it) and `label` (one of `classes_`).

        Raises
        ------
        ConfigError
            Several outputs.
        InputError
            Series that cannot be used as they are.

        Notes
        -----
        O(P) passes through the model a series, for P motifs.

        Examples
        --------
        >>> from sktime.datasets import load_unit_test
        >>> from pipelines.classify.sktime import VSFormerClassifier
        >>> X, y = load_unit_test(split="train")
        >>> classifier = VSFormerClassifier(d_model=8, epochs=1, random_state=0).fit(X, y)
        >>> len(classifier.explain(X.iloc[:2]))
        2
        """
        data = self._asked(X, "explain")
        if self.n_classes_ == 1:
            return [[] for _ in data.series]
        from pipelines.classify.predict import explain

        named = {str(label): label for label in self.classes_}
        told = explain(self.classifier_.state, data)
        return [[dataclasses.replace(shape, label=named[shape.label]) for shape in shapes] for shapes in told]

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's own searches and scorers ask since its version 1.6, and sktime 1.2 does not say."""
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        return Tags("classifier", TargetTags(required=True), classifier_tags=ClassifierTags())

    # Between sktime and the pipeline --------------------------------------------------------------------------------

    def _asked(self, X: Any, method: str) -> LabelledSeries:
        """Series of X for a method that sktime does not know, checked and converted as for its own."""
        self.check_is_fitted()
        if self._is_vectorized:
            cure = f"classifiers_ holds a classifier for each column of y: call its {method}"
            raise ConfigError("several outputs have no joint answer", where=method, cure=cure)
        converted = self._check_convert_X_for_predict(X)
        return self._read(converted) if self.n_classes_ > 1 else _labelled(converted)

    def _read(self, X: Any) -> LabelledSeries:
        """Series to answer for, whose variables must stand where they stood in fit."""
        data = _labelled(X)
        notes = [*data.notes, *self._short(data)]
        if isinstance(X, list) and self._variables is not None and data.variables != self._variables:
            found, expected = (", ".join(names) for names in (data.variables, self._variables))
            if sorted(data.variables) == sorted(self._variables):
                cure = "select the columns in the order of fit"
                raise InputError(
                    "the columns stand in another order than in fit",
                    where="X",
                    found=found,
                    expected=expected,
                    cure=cure,
                )
            if len(data.variables) == len(self._variables):
                notes.append(f"columns {found} of X are taken for {expected} of fit, by their place")
        self._warn(notes)
        return data

    def _probabilities(self, data: LabelledSeries) -> NDArray[np.float64]:
        """(n, classes) in the order of `classes_`; the pipeline orders labels as text."""
        state = self.classifier_.state
        order = [state.classes.index(str(label)) for label in self.classes_]
        return state.probabilities(data)[:, order]

    def _short(self, data: LabelledSeries) -> list[str]:
        tokeniser = self.classifier_.state.tokeniser
        length = 0 if tokeniser is None else tokeniser.motifs.length
        count = int((data.lengths < length).sum())
        told = f"{count} of {len(data)} series are shorter than a motif ({length} steps): judged by values alone"
        return [told] if count else []

    def _warn(self, notes: Iterable[str]) -> None:
        for note in notes:
            warn(f"{type(self).__name__}: {note}", obj=self)


def _labelled(X: Any, y: NDArray[Any] | None = None) -> LabelledSeries:
    """One of the inner types of sktime as series (V, T), with the number of values that are missing as a note."""
    names: Sequence[str] | None = None
    if isinstance(X, list):
        names = [str(column) for column in X[0].columns]
        for place, frame in enumerate(X):
            if [str(column) for column in frame.columns] != names:
                found, expected = ", ".join(map(str, frame.columns)), ", ".join(names)
                where = f"X, series {place}"
                raise InputError("other columns than those of the first", where=where, found=found, expected=expected)
        X = [frame.to_numpy(dtype=np.float64, na_value=np.nan).T for frame in X]
    data = LabelledSeries.of(X, labels=None if y is None else _texts(y), source="X", variables=names)
    if data.missing:
        holes = sum(bool(np.isnan(one).any()) for one in data.series)
        note = f"{data.missing:,} values in {holes} of {len(data)} series are missing: no motif is looked for there"
        data = dataclasses.replace(data, notes=(note,))
    return data


def _texts(y: NDArray[Any]) -> list[str]:
    missing = np.flatnonzero(pd.isna(y))
    if len(missing):
        found = f"{len(missing)} of {len(y)} missing, the first at place {missing[0]}"
        raise InputError("labels are missing", where="y", found=found, cure="leave these series out")
    return [str(label) for label in y]


def _seed(random_state: Any) -> int:
    """A seed from what scikit-learn takes for one; an integer is the seed itself."""
    from sklearn.utils import check_random_state

    try:
        generator = check_random_state(random_state)
    except ValueError as error:
        expected = "a whole number from 0 to 2^32 - 1, a RandomState or None"
        raise ConfigError("no seed", where="random_state", found=random_state, expected=expected) from error
    return random_state if isinstance(random_state, int) else int(generator.randint(2**31 - 1))


def plain(value: Any) -> Any:
    """A Python number: tuning draws NumPy's.

    Example:
        >>> plain(np.int64(3)), plain(None)
        (3, None)
    """
    return value.item() if isinstance(value, np.generic) else value
