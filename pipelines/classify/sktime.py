"""sktime estimator of VSFormer.

Paper: "VSFormer: Value and Shape-Aware Transformer with Prior-Enhanced Self-Attention for Multivariate Time Series
Classification" (2024, arXiv 2412.16515).

It works in sktime's pipelines, ensembles, tuning and evaluation. Model, training, calibration and conformal sets are
those of `pipelines classify`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from pipelines.classify.options import TRAINING, ArchOptions
from pipelines.classify.pipeline import Classifier
from pipelines.classify.sktime_base import NeuralClassifier, plain

__all__ = ["VSFormerClassifier"]

_ARCH = (
    *("motif", "motifs", "tokens", "form", "tsi", "d_model", "n_heads", "layers", "d_ff", "dropout", "token_dropout"),
    *("components", "warps", "mixup"),
)
_TRAIN = ("epochs", "batch_size", "learning_rate", "patience", "schedule", "weight_decay", "max_steps")


class VSFormerClassifier(NeuralClassifier):
    """Classify series by motifs and interval statistics, mixed by attention that knows how much each tells.

    The motifs of every class and variable come from the matrix profile of the training series, and each motif and
    interval has a prior: how well it alone tells the classes apart. Variables are standardised by the training series.
    Whitened principal components of the variables are added to them. A fifth of each class's training series is first
    held out: it calibrates the probabilities (temperature) and gives the label sets of `predict_sets`; then the model
    is trained on all of them. Series may be of unequal length and are never padded; missing values are never filled:
    no motif is looked for across them, statistics leave them out.

    The first search for motifs compiles for half a minute; compiled code and found motifs are kept on disk.

    Parameters
    ----------
    attention : str, default="prior_enhanced"
        Mechanism that mixes the tokens; any other sequence mechanism of `pipelines mechanisms` as well.
    motif : int, optional
        Steps of a motif; by default a seventh of the median length, at least 5, at most the shortest series.
    motifs : int, default=3
        Motifs a class and variable.
    tokens : int, optional
        Motifs, and intervals, that are kept at most, those of the largest priors; by default 384.
    components : int, optional
        Whitened principal components that are added to the variables, at most; 0 adds none; by default 64.
    form : str, default="product"
        "product" (scores times priors, as in the paper) or "log" (plus their logarithm); read by prior_enhanced only.
    tsi : bool, default=True
        Tell each token its variable, place, class and prior.
    d_model : int, optional
        Width; by default 32.
    n_heads : int, optional
        Heads of each mixer; divides d_model; by default 4.
    layers : int, optional
        Layers of each branch; by default 1.
    d_ff : int, optional
        Width of the feed-forward part; by default 64.
    dropout : float, optional
        Probability of dropping, in training, a number that the decision layer reads; by default 0.1.
    token_dropout : float, optional
        Probability of hiding a token in training; by default 0.5.
    warps : int, optional
        Copies of each training series that are bent in time, of which training draws; by default 8.
    mixup : float, optional
        How evenly a training series is mixed with another, Beta's parameter; 0 does not; by default 0.5.
    epochs : int, optional
        Passes over the training series at most, of at least 16 steps each; by default 40.
    batch_size : int, optional
        Series in a step; by default 16.
    learning_rate : float, optional
        Step size of Adam; by default 0.002.
    patience : int, optional
        Stop the first training after so many epochs without a better held-out loss; 0 never does; by default 15.
    schedule : str, optional
        Step size over the epochs: "cosine", "halve" or "constant"; by default "cosine".
    weight_decay : float, optional
        Weight decay of Adam; by default 0.0.
    max_steps : int, optional
        Optimizer steps at most; 0 goes by epochs alone; by default 0.
    random_state : int, RandomState or None, default=None
        Of weights, order, dropout and the held-out series; the same integer gives the same probabilities.
    verbose : bool, default=False
        Show the progress of the training on the error stream.
    device : str, default="cpu"
        "cpu", "cuda", "cuda:N", "mps" or "auto".

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes_,)
        Labels as they were given, in the order of the columns of `predict_proba`.
    n_classes_ : int
        Number of labels.
    notes_ : tuple of str
        What was done to the data, counted; each is also a warning, but for what happens at every fit.
    training_ : dict
        Epochs, steps, losses, numbers of series.
    temperature_ : float
        What the logits are divided by, from 1 (as sure as the model is) to 20.
    classifier_ : pipelines.Classifier
        The fitted pipeline, which can be saved, exported and evaluated; its classes are the labels as text.

    With a single label in training sktime answers that label without a model: only `classes_` and `n_classes_` are set.

    References
    ----------
    .. [1] VSFormer: Value and Shape-Aware Transformer with Prior-Enhanced Self-Attention for Multivariate Time Series
       Classification. 2024. arXiv 2412.16515.

    Notes
    -----
    Time to fit: O(classes V n^2) for the motifs of V variables and n points of a class, at most 20,000, and
    O(epochs N tokens d_model^2) for N series.

    Examples
    --------
    >>> from sktime.datasets import load_basic_motions
    >>> from pipelines.classify.sktime import VSFormerClassifier
    >>> X, y = load_basic_motions(split="train", return_type="numpy3D")
    >>> classifier = VSFormerClassifier(motifs=1, d_model=16, epochs=2, random_state=0).fit(X[:, :2], y)
    >>> classifier.predict_proba(X[:5, :2]).shape
    (5, 4)
    >>> [str(label) for label in classifier.classes_]
    ['badminton', 'running', 'standing', 'walking']
    """

    def __init__(
        self,
        attention: str = "prior_enhanced",
        motif: int | None = None,
        motifs: int = 3,
        tokens: int | None = None,
        components: int | None = None,
        form: str = "product",
        tsi: bool = True,
        d_model: int | None = None,
        n_heads: int | None = None,
        layers: int | None = None,
        d_ff: int | None = None,
        dropout: float | None = None,
        token_dropout: float | None = None,
        warps: int | None = None,
        mixup: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        patience: int | None = None,
        schedule: str | None = None,
        weight_decay: float | None = None,
        max_steps: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
        device: str = "cpu",
    ) -> None:
        self.attention = attention
        self.motif = motif
        self.motifs = motifs
        self.tokens = tokens
        self.components = components
        self.form = form
        self.tsi = tsi
        self.d_model = d_model
        self.n_heads = n_heads
        self.layers = layers
        self.d_ff = d_ff
        self.dropout = dropout
        self.token_dropout = token_dropout
        self.warps = warps
        self.mixup = mixup
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.max_steps = max_steps
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        super().__init__()

    def _pipeline(self, seed: int) -> Classifier:
        chosen = {name: plain(value) for name, value in self.get_params(deep=False).items()}
        recipe = {name: chosen[name] for name in _TRAIN if chosen[name] is not None}
        return Classifier(
            model="vsformer",
            attention=chosen["attention"],
            arch=ArchOptions(**{name: chosen[name] for name in _ARCH}),
            train=dataclasses.replace(TRAINING, **recipe),
            device=self.device,
            seed=seed,
        )

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Two small settings for sktime's checks.

        Parameters
        ----------
        parameter_set : str, default="default"
            There is one set of settings only.
        """
        shared = {"d_model": 8, "n_heads": 2, "d_ff": 8, "max_steps": 2, "warps": 1}
        return [
            {"epochs": 1, **shared},
            {"attention": "softmax", "motif": 4, "motifs": 1, "tokens": 8, "tsi": False, "epochs": 2, **shared},
        ]
