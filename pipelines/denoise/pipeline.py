"""The public class of hyperspectral denoising: noisy cubes to clean ones, in their own format, scale and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pipelines.base import Evaluation
from pipelines.denoise.options import (
    CASES,
    MODELS,
    TRAINING,
    ArchOptions,
    Reading,
    Scale,
    architecture,
    check_values,
)
from pipelines.errors import ConfigError
from pipelines.fitted import FittedPipeline
from pipelines.model_list import check_attention
from pipelines.training.options import TrainOptions
from pipelines.values import as_options

if TYPE_CHECKING:
    from pipelines.denoise.engine import Fitted
    from pipelines.denoise.folder import DenoisedCubes
    from pipelines.denoise.noising import NoisyCube
    from pipelines.denoise.result import Denoised

__all__ = ["Denoiser"]

ENDINGS = (".mat", ".hdr", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin", ".tif", ".tiff", ".h5", ".hdf5")
MORE_ENDINGS = (".hdf", ".he5", ".nc", ".npy", ".npz", ".fits", ".fit", ".fts")


class Denoiser(FittedPipeline["Fitted"]):
    """Remove noise from hyperspectral cubes: MATLAB, ENVI, GeoTIFF, HDF5, NPY, FITS, of any size and number of bands.

    The answer has the format, type, scale, wavelengths, georeference and no-data voxels of the input. A small blind
    model (HSDT-S) ships with the package: without ``fit``, ``predict`` and ``evaluate`` take it.

    Args:
        model: hsdt, or a rule that learns nothing: svd, svd_rank3, svd_non_local_means, non_local_means,
            total_variation.
        attention: any mechanism for sequences or grids of three axes in the place of hsdt's guided_spectral.
        arch: size and shape of the model (an ArchOptions, or a dict of its fields).
        start: a folder of weights that training starts from.
        subspace: whether the model sees the few spectra of the cube that stand out of the noise, or the whole cube.
        scale: how values are brought to the scale of 0 to 1: the whole cube, band by band, or none (they are there).
        outliers: share of the values, noise put aside, that may lie outside 0 to 1 at either end.
        read: how a cube is read where its file does not say (a Reading, or a dict of its fields).
        cases: noise cases that ``evaluate`` adds to clean cubes.
        baselines: whether ``evaluate`` measures the rules beside the model.
        tile: rows and columns of a tile; default what ``memory`` allows.
        memory: megabytes that a tile may take.
        patch: rows and columns of a training piece.
        patches: training pieces an epoch.
        projected: share of the training pieces with Gaussian noise alone that the model sees in their subspace.
        train: how the model is fitted (a TrainOptions, or a dict of its fields).
        device: auto, cpu, cuda, cuda:N or mps.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true; bf16-mixed also denoises in bfloat16.
        seed: of weights, training pieces, held-out pictures and noise.
        threads: CPU threads; default what torch takes.

    Raises:
        ConfigError: when used, for a model or option that does not exist.

    Example:
        >>> Denoiser(model="svd").model
        'svd'
    """

    domain: ClassVar[str] = "denoise"
    engine: ClassVar[str] = "pipelines.denoise.engine"
    summary: ClassVar[str] = "Remove noise from hyperspectral cubes (MATLAB, ENVI, GeoTIFF, HDF5, NPY, FITS)."
    verbs: ClassVar[Mapping[str, str]] = {"noise": "noise"}
    endings: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "predict": (*ENDINGS, *MORE_ENDINGS),
        "noise": (*ENDINGS, *MORE_ENDINGS),
    }
    call_time: ClassVar[frozenset[str]] = frozenset(
        {
            "start",
            "subspace",
            "scale",
            "outliers",
            "read",
            "cases",
            "baselines",
            "tile",
            "memory",
            "patch",
            "patches",
            "projected",
            "train",
        }
    )

    def __init__(
        self,
        *,
        model: str = "hsdt",
        attention: str | None = None,
        arch: ArchOptions = ArchOptions(),  # noqa: B008 - frozen
        start: str | None = None,
        subspace: bool = True,
        scale: Scale = "cube",
        outliers: float = 0.001,
        read: Reading = Reading(),  # noqa: B008 - frozen
        cases: tuple[str, ...] = CASES,
        baselines: bool = True,
        tile: int | None = None,
        memory: int = 2000,
        patch: int = 32,
        patches: int = 1600,
        projected: float = 0.7,
        train: TrainOptions = TRAINING,
        device: str = "auto",
        precision: str = "32-true",
        seed: int = 2021,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.attention = attention
        self.arch = as_options(ArchOptions, arch, "arch")
        self.start = start
        self.subspace = subspace
        self.scale = scale
        self.outliers = outliers
        self.read = as_options(Reading, read, "read")
        self.cases = cases
        self.baselines = baselines
        self.tile = tile
        self.memory = memory
        self.patch = patch
        self.patches = patches
        self.projected = projected
        self.train = as_options(TrainOptions, train, "train")
        self.device = device
        self.precision = precision
        self.seed = seed
        self.threads = threads

    def fit(self, data: Any) -> Self:
        """Learn from clean cubes, and from photographs that are lifted to cubes, with simulated noise on them.

        Args:
            data: a folder of cubes and pictures, a file, several of them, or an array (D, H, W).

        Raises:
            InputError: files that cannot be read, fewer than two, none as large as a patch.
            ConfigError: an option that does not exist or does not fit.
        """
        from pipelines.denoise import engine
        from pipelines.denoise.reading import clean_sources

        self._check()
        self.start_torch()
        rule = MODELS[self.model].baseline
        self._state = engine.fit(self, [] if rule else clean_sources(self, data))
        self._fitted = True
        return self

    def predict(self, inputs: Any) -> Denoised | DenoisedCubes:
        """Denoise a cube, or all cubes of a folder, when the result is saved, drawn or asked for its values.

        Args:
            inputs: a path, the name of an embedded cube, or an array (D, H, W), NaN where there is no value; a folder,
                with the folders in it; or a list of these.

        Returns:
            Denoised for a single cube. DenoisedCubes for a folder or a list, also of one: its cubes are read, denoised
            and written one after the other, and one that is bad is left out and named in ``failures``.

        Raises:
            InputError: a file that is no cube, damaged, or has one band; of several, when none is left; a folder
                without cubes.

        Example:
            >>> import numpy as np
            >>> noisy = np.random.default_rng(0).normal(0.5, 0.1, (6, 24, 24))
            >>> several = Denoiser(model="svd").predict([noisy, "nowhere.mat"])
            >>> [item.name for item in several.items], list(several.failures)
            (['array-0.npy'], ['nowhere.mat'])
            >>> bool(several.items[0].denoised().values().std() < 0.5 * noisy.std())
            True
        """
        from pipelines.denoise.predict import predict

        self._ready("predict")
        return predict(self._as_it_is(), inputs)

    def evaluate(self, data: Any) -> Evaluation:
        """Add noise to clean cubes, remove it, and compare: PSNR, SSIM, spectral angle, ERGAS, beside the rules.

        Args:
            data: clean cubes, or photographs that are lifted to cubes: a file, a folder, several, or an array.
        """
        from pipelines.denoise.evaluation import evaluate

        self._ready("evaluate")
        return evaluate(self, data)

    def noise(self, data: Any, case: str = "mixture") -> NoisyCube:
        """Add simulated noise to a clean cube or photograph, and say what was added: test data for ``predict``.

        Args:
            data: a clean cube, or a photograph that is lifted to 31 bands.
            case: gaussian30 (or another level of 255), blind, noniid, stripe, deadline, impulse or mixture.

        Raises:
            InputError: a file that is no cube, or is not known everywhere.
            ConfigError: no such case.
        """
        from pipelines.denoise.noising import noise

        self._check()
        check_values(patch=self.patch, patches=self.patches, memory=self.memory, tile=None, cases=(case,))
        return noise(self, data, case)

    noise.fits_itself = True  # type: ignore[attr-defined]

    def demo(self) -> tuple[Evaluation, Denoised]:
        """Denoise a lifted photograph under two kinds of noise, and a real cube of the MUSE spectrograph."""
        from pipelines.denoise.predict import cube_of, denoised
        from pipelines.denoise.reading import demo_cube

        self._ready("demo")
        twin = self._as_it_is(cases=("noniid", "mixture"))
        return twin.evaluate(demo_cube(self.seed)), denoised(twin, cube_of(twin, "demo"))

    @classmethod
    def from_official(cls, path: str | Path, **params: Any) -> Self:
        """A fitted pipeline around a released HSDT checkpoint; its size is found by its shapes.

        Raises:
            WeightsError: a file that is not such a checkpoint.
            ConfigError: a checkpoint that does not denoise a cube alone.
        """
        from typing import cast

        from pipelines.denoise import engine
        from pipelines.denoise.models.hsdt import HSDT
        from pipelines.official import load_official

        module = cast(HSDT, load_official("hsdt", path))
        if module.variant.in_channels != 1 or module.variant.rgb:
            raise ConfigError("this checkpoint does not denoise a cube alone", where=path)
        pipeline = cls(**params)
        pipeline.start_torch()
        pipeline._state = engine.from_official(pipeline, module, path)
        pipeline._fitted = True
        return pipeline

    @classmethod
    def check_kit(cls) -> dict[str, Any]:
        """A short run on two pieces of photographs."""
        from pipelines.data.catalog import entries, sample_path
        from pipelines.data.formats.image import read_image
        from pipelines.denoise.reading import Clean

        params = {
            "arch": ArchOptions(variant="hsdt_4", num_bands=8),
            "train": TrainOptions(epochs=1, batch_size=2, patience=0),
            "patch": 8,
            "patches": 4,
            "cases": ("gaussian50",),
            "baselines": True,
        }
        pieces = [Clean(e.name, image=read_image(sample_path(e)).pixels[:32, :32]) for e in entries("superres")[:2]]
        return {"params": params, "data": pieces, "inputs": "demo"}

    def shipped_name(self) -> str | None:
        """The small model's, where nothing about it is changed."""
        usual = self.attention in (None, "guided_spectral") and self.arch == ArchOptions() and self.model == "hsdt"
        return "hsdt_s" if usual else None

    def _as_it_is(self, **changes: Any) -> Self:
        """The same fitted pipeline, of which a later ``fit`` changes nothing."""
        twin = self.clone(**changes)
        twin._state, twin._fitted, twin.run = self.state, True, self.run
        return twin

    def _fit_rule(self) -> Fitted | None:
        from pipelines.denoise.engine import fit_baseline

        return fit_baseline(self.model) if MODELS[self.model].baseline else None

    def _check(self) -> None:
        architecture(self.model, self.arch)
        check_values(
            patch=self.patch, patches=self.patches, memory=self.memory, tile=self.tile, cases=tuple(self.cases)
        )
        if not 0 <= self.outliers < 0.5:
            raise ConfigError("not a share", where="outliers", found=self.outliers, expected="0 to 0.5")
        if not 0 <= self.projected <= 1:
            raise ConfigError("not a share", where="projected", found=self.projected, expected="0 to 1")
        check_attention(MODELS, self.model, self.attention)
        self.train.validate()

    @property
    def has_weights(self) -> bool:
        """Whether there is anything to save: rules have no weights."""
        return self.is_fitted and self.state.module is not None
