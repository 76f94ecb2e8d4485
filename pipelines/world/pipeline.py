"""The public class of world models: films and environments to what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pipelines.base import Evaluation
from pipelines.data.datasets.world_reading import WorldReading
from pipelines.errors import ConfigError
from pipelines.fitted import FittedPipeline
from pipelines.model_list import check_attention
from pipelines.training.options import TrainOptions
from pipelines.values import as_options
from pipelines.world.options import (
    MODELS,
    TRAINING,
    ArchOptions,
    EnvironmentOptions,
    ObjectiveOptions,
    PlanOptions,
    SplitOptions,
    architecture,
    check_values,
)

if TYPE_CHECKING:
    from pipelines.world.engine import Fitted  # noqa: F401 - the state named below
    from pipelines.world.plans import Plans
    from pipelines.world.result import Rollout

__all__ = ["WorldModel"]


class WorldModel(FittedPipeline["Fitted"]):
    """Predict what comes next in films and environments, frame by frame, under given actions or none.

    FluidWorld: a learned reaction-diffusion equation is integrated over a field, and the field one frame on is the
    prediction; a Transformer and a ConvLSTM with as many parameters stand in the same shell. Films, folders of films,
    NPZ, NPY, HDF5, Moving MNIST, UCF-101 and gymnasium environments are read. Nothing is resized, repeated or left out
    unsaid, and results depend on the arguments alone.

    Args:
        model: fluidworld, transformer or convlstm.
        context: frames that are seen before a prediction.
        horizon: frames that are predicted.
        attention: any mechanism for images or sequences in the place of the model's own.
        arch: size and shape of the model (an ArchOptions, or a dict of its fields).
        read: how films and arrays are read (a WorldReading, or a dict).
        objective: what is learned (an ObjectiveOptions, or a dict).
        split: what is learned from and measured on (a SplitOptions, or a dict).
        environment: how gymnasium environments are recorded (an EnvironmentOptions, or a dict).
        planning: planning in an environment (a PlanOptions, or a dict).
        start: number of the first frame that ``predict`` predicts, from 0; by default the last ``horizon`` frames of an
            episode are predicted, or, where it is too short for that, the frames after its end.
        train: how the model is fitted (a TrainOptions, or a dict of its fields).
        device: auto, cpu, cuda, cuda:N or mps.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
        seed: of weights, windows, environments and splits.
        threads: CPU threads; default what torch takes.

    Raises:
        ConfigError: when used, for a model or option that does not exist.

    Example:
        >>> WorldModel(horizon=8).horizon
        8
    """

    domain: ClassVar[str] = "world"
    engine: ClassVar[str] = "pipelines.world.engine"
    summary: ClassVar[str] = "Predict what comes next in films and environments (video, NPZ, HDF5, gymnasium)."
    verbs: ClassVar[Mapping[str, str]] = {"play": "play", "plan": "plan"}
    endings: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "predict": (".npz", ".gif", ".mp4", ".png"),
        "play": (".npz", ".gif", ".mp4", ".png"),
        "plan": (".json", ".gif", ".mp4"),
    }
    together: ClassVar[frozenset[str]] = frozenset({"predict", "play"})
    call_time: ClassVar[frozenset[str]] = frozenset(
        {"read", "context", "horizon", "objective", "split", "environment", "planning", "start", "train"}
    )

    def __init__(
        self,
        *,
        model: str = "fluidworld",
        context: int = 2,
        horizon: int = 16,
        attention: str | None = None,
        arch: ArchOptions = ArchOptions(),  # noqa: B008 - frozen
        read: WorldReading = WorldReading(),  # noqa: B008 - frozen
        objective: ObjectiveOptions = ObjectiveOptions(),  # noqa: B008 - frozen
        split: SplitOptions = SplitOptions(),  # noqa: B008 - frozen
        environment: EnvironmentOptions = EnvironmentOptions(),  # noqa: B008 - frozen
        planning: PlanOptions = PlanOptions(),  # noqa: B008 - frozen
        start: int | None = None,
        train: TrainOptions = TRAINING,
        device: str = "auto",
        precision: str = "32-true",
        seed: int = 2021,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.context = context
        self.horizon = horizon
        self.attention = attention
        self.arch = as_options(ArchOptions, arch, "arch")
        self.read = as_options(WorldReading, read, "read")
        self.objective = as_options(ObjectiveOptions, objective, "objective")
        self.split = as_options(SplitOptions, split, "split")
        self.environment = as_options(EnvironmentOptions, environment, "environment")
        self.planning = as_options(PlanOptions, planning, "planning")
        self.start = start
        self.train = as_options(TrainOptions, train, "train")
        self.device = device
        self.precision = precision
        self.seed = seed
        self.threads = threads

    def fit(self, data: Any) -> Self:
        """Learn from films or episodes what comes next.

        Args:
            data: a name of the catalogue, a film, a folder, an archive of arrays, the name of a gymnasium environment
                (episodes are then recorded), arrays (T, H, W, C), or episodes.

        Raises:
            InputError: nothing that is a world, or episodes that do not go together.
            ConfigError: an option that does not exist or does not fit.
        """
        from pipelines.world.engine import fit

        self._check()
        self.start_torch()
        self._state, self._fitted = fit(self, data), True
        return self

    def predict(self, inputs: Any) -> Rollout:
        """What comes after the frames seen, beside what really came where that is known.

        Args:
            inputs: as :meth:`fit`, or a list of these.

        Raises:
            InputError: nothing that is a world, or frames of another size than the model's.
        """
        from pipelines.world.predict import predict

        self._ready("predict")
        return predict(self, inputs)

    def play(self, inputs: Any, *, action: tuple[float, ...] = (), actions: str | None = None) -> Rollout:
        """A rollout under actions that you give, with the last frames of the inputs as its beginning.

        Args:
            inputs: as :meth:`fit`.
            action: the same action at every step: its numbers, or the number of a kind alone.
            actions: a CSV file with one action for each step, in place of ``action``.

        Raises:
            InputError: as :meth:`predict`, or actions of another width or length.
            ConfigError: a model without actions, or neither or both kinds of actions.
        """
        from pipelines.world.predict import play

        self._ready("play")
        return play(self, inputs, action, actions)

    def plan(self, data: Any) -> Plans:
        """Act in a gymnasium environment by the cross-entropy method on a model learned from random play.

        Args:
            data: name of the environment, such as CartPole-v1.

        Raises:
            InputError: no such environment, or gymnasium is not installed.
        """
        from pipelines.world.plans import plan

        self._check()
        self.start_torch()
        return plan(self, data)

    # They answer with what is fitted or ships, and never fit on their inputs; a plan learns a model of its own.
    predict.fits_itself = True  # type: ignore[attr-defined]
    play.fits_itself = True  # type: ignore[attr-defined]
    plan.fits_itself = True  # type: ignore[attr-defined]

    def evaluate(self, data: Any) -> Evaluation:
        """Measure rollouts by horizon on frames not learned from, beside the last and the mean frame.

        Args:
            data: as :meth:`fit`.

        Raises:
            NothingToMeasure: every frame was learned from.
        """
        from pipelines.world.evaluation import evaluate

        self._ready("evaluate")
        return evaluate(self, data)

    def demo(self) -> tuple[Evaluation, Rollout]:
        """Measure on the last fifth of the embedded street video, and predict its last frames."""
        self._ready("demo")
        return self.evaluate("demo"), self.predict("demo")

    @classmethod
    def from_official(cls, path: str | Path, **params: Any) -> Self:
        """A fitted pipeline around a checkpoint of the released code, with its deterministic behaviours.

        Raises:
            WeightsError: a file that is not such a checkpoint.
        """
        from pipelines.world import engine

        pipeline = cls(**params)
        pipeline._check()
        pipeline.start_torch()
        pipeline._state, pipeline._fitted = engine.from_official(pipeline, path), True
        return pipeline

    @classmethod
    def check_kit(cls) -> dict[str, Any]:
        """A short run on some frames of the embedded street video."""
        from pipelines.data.datasets.world_windows import cut_episode
        from pipelines.world.material import episodes_of

        read = WorldReading(size=(16, 16))
        street = episodes_of(cls(read=read), "demo")[0][0]
        params = {
            "arch": ArchOptions(dim=16, layers=1, steps=2),
            "read": read,
            "horizon": 3,
            "objective": ObjectiveOptions(windows=8, free=(1, 2)),
            "train": TrainOptions(epochs=1, batch_size=4, patience=0),
        }
        return {"params": params, "data": cut_episode(street, 0, 60), "inputs": cut_episode(street, 60, 70)}

    def shipped_name(self) -> str | None:
        """The model of the street video, where nothing about it is changed."""
        usual = self.model == "fluidworld" and self.attention in (None, "reaction_diffusion")
        return "fluidworld_street" if usual and self.arch == ArchOptions() else None

    def _check(self) -> None:
        architecture(self.model, self.arch)
        check_values(self.context, self.horizon, self.objective, self.split)
        check_attention(MODELS, self.model, self.attention)
        if self.start is not None and (
            isinstance(self.start, bool) or not isinstance(self.start, int) or self.start < 1
        ):
            raise ConfigError("no such frame", where="start", found=self.start, expected="a number from 1")
        self.train.validate()
