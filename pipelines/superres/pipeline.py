"""The public class of super-resolution: photographs to larger ones, of any size, in constant memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pipelines.base import Evaluation
from pipelines.errors import ConfigError
from pipelines.fitted import FittedPipeline
from pipelines.model_list import check_attention
from pipelines.superres.options import MODELS, TRAINING, ArchOptions, DegradeOptions, architecture, check_values
from pipelines.training.options import TrainOptions
from pipelines.values import as_options

if TYPE_CHECKING:
    from pipelines.superres.engine import Fitted
    from pipelines.superres.result import Pictures

__all__ = ["SuperResolver"]


class SuperResolver(FittedPipeline["Fitted"]):
    """Enlarge images by a whole factor: PNG, JPEG, WebP, TIFF, BMP; 8 and 16 bit; grey, colour, with alpha.

    An image is cut into overlapping tiles that are read, enlarged and written one band at a time, so that memory does
    not grow with it; what comes out is the same as if it had been enlarged whole. For the factors 2, 3 and 4 weights
    ship with the package: without ``fit``, ``predict`` and ``evaluate`` take them.

    Args:
        model: cfsr or bicubic.
        scale: factor of both sides, 1 to 8.
        attention: any mechanism for two-dimensional grids in the place of cfsr's large_kernel.
        arch: size and shape of the model (an ArchOptions, or a dict of its fields).
        degrade: how small images are made of large ones in training and evaluation (a DegradeOptions, or a dict).
        ensemble: average over the eight ways to lay the image; an uncertainty map comes with it. Eight times the time.
        tile: sides of a tile in pixels; default what ``memory`` allows.
        memory: megabytes that a tile and its band of rows may take.
        limit: megapixels beyond which an image is refused.
        first_frame: take the first picture of a file that holds several, instead of refusing it.
        start: a folder of weights that training starts from, of another scale too.
        patch: sides of a small training patch.
        patches: training patches an epoch.
        train: how the model is fitted (a TrainOptions, or a dict of its fields).
        device: auto, cpu, cuda, cuda:N or mps.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true; bf16-mixed also enlarges in bfloat16.
        seed: of weights, patches, the held-out images and noise.
        threads: CPU threads; default what torch takes.

    Raises:
        ConfigError: when used, for a model or option that does not exist.

    Example:
        >>> SuperResolver(scale=2).scale
        2
    """

    domain: ClassVar[str] = "superres"
    engine: ClassVar[str] = "pipelines.superres.engine"
    summary: ClassVar[str] = "Enlarge photographs (PNG, JPEG, WebP, TIFF) of any size by a factor of 2, 3 or 4."
    endings: ClassVar[Mapping[str, tuple[str, ...]]] = {"predict": (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")}
    call_time: ClassVar[frozenset[str]] = frozenset(
        {"degrade", "ensemble", "tile", "memory", "limit", "first_frame", "start", "patch", "patches", "train"}
    )

    def __init__(
        self,
        *,
        model: str = "cfsr",
        scale: int = 4,
        attention: str | None = None,
        arch: ArchOptions = ArchOptions(),  # noqa: B008 - frozen
        degrade: DegradeOptions = DegradeOptions(),  # noqa: B008 - frozen
        ensemble: bool = False,
        tile: int | None = None,
        memory: int = 500,
        limit: int = 500,
        first_frame: bool = False,
        start: str | None = None,
        patch: int = 32,
        patches: int = 4000,
        train: TrainOptions = TRAINING,
        device: str = "auto",
        precision: str = "32-true",
        seed: int = 2021,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.scale = scale
        self.attention = attention
        self.arch = as_options(ArchOptions, arch, "arch")
        self.degrade = as_options(DegradeOptions, degrade, "degrade")
        self.ensemble = ensemble
        self.tile = tile
        self.memory = memory
        self.limit = limit
        self.first_frame = first_frame
        self.start = start
        self.patch = patch
        self.patches = patches
        self.train = as_options(TrainOptions, train, "train")
        self.device = device
        self.precision = precision
        self.seed = seed
        self.threads = threads

    def fit(self, data: Any) -> Self:
        """Learn from large images, of which small ones are made; a tenth of the images chooses the epoch.

        Args:
            data: a folder of images, or several paths or arrays (H, W, 3) uint8.

        Raises:
            InputError: images that cannot be read, fewer than two, or none that is large enough for a patch.
            ConfigError: an option that does not exist or does not fit.
        """
        from pipelines.superres import engine
        from pipelines.superres.reading import training_images

        self._check()
        self.start_torch()
        images = {} if MODELS[self.model].baseline else training_images(self, data)
        self._state = engine.fit(self, images)
        self._fitted = True
        return self

    def predict(self, inputs: Any) -> Pictures:
        """Enlarge an image, or all images of a folder, when the result is saved, drawn or asked for its pixels.

        Args:
            inputs: a path, a folder, a PIL image, an array (H, W), (H, W, 3) or (H, W, 4) of uint8 or uint16, or a
                sequence of these.

        Raises:
            InputError: an image that cannot be read; in a folder it is left out and named in ``failures``.
            ConfigError: nothing is fitted, and no weights ship for this scale.
        """
        from pipelines.superres.predict import predict

        self._ready("predict")
        return predict(self, inputs)

    def evaluate(self, data: Any) -> Evaluation:
        """Make small images of large ones, enlarge them, and compare: PSNR and SSIM beside bicubic interpolation.

        Args:
            data: a folder of large images, or one in the benchmarks' layout: HR/NAME.png and, where they exist, the
                small ones in LR_bicubic/X4/NAMEx4.png.
        """
        from pipelines.superres.evaluation import evaluate

        self._ready("evaluate")
        return evaluate(self, data)

    def demo(self) -> tuple[Evaluation, Pictures]:
        """Restore four photographs that no shipped model was trained on, and show one of them."""
        self._ready("demo")
        return self.evaluate("demo"), self.predict(self.demo_images()[0])

    @staticmethod
    def demo_images() -> list[Path]:
        """The embedded photographs, which no shipped model was trained on.

        Example:
            >>> [path.name for path in SuperResolver.demo_images()]
            ['coffee.png', 'chelsea.png', 'astronaut.png', 'china.jpg']
        """
        from pipelines.data.catalog import entries, sample_path

        return [sample_path(one) for one in entries("superres")]

    @classmethod
    def from_official(cls, path: str | Path, **params: Any) -> Self:
        """A fitted pipeline around a released CFSR checkpoint, merged or not; its scale is found by its shapes.

        Raises:
            WeightsError: a file that is not such a checkpoint.
            ConfigError: another scale than the file's was asked for.
        """
        from typing import cast

        from pipelines.official import load_official
        from pipelines.superres import engine
        from pipelines.superres.models.cfsr import CFSR

        model = cast(CFSR, load_official("cfsr", path))
        asked = params.pop("scale", None)
        if asked not in (None, model.scale, cls().scale):
            raise ConfigError(
                "the checkpoint is for another scale",
                where=path,
                found=model.scale,
                expected=asked,
                cure="drop --scale",
            )
        pipeline = cls(scale=model.scale, **params)
        pipeline.start_torch()
        pipeline._state = engine.from_official(pipeline, model, path)
        pipeline._fitted = True
        return pipeline

    @classmethod
    def check_kit(cls) -> dict[str, Any]:
        """A short run on pieces of two photographs."""
        from pipelines.data.formats.image import read_image

        params = {
            "scale": 2,
            "arch": ArchOptions(dim=8, depths=(1,), kernel=3),
            "train": TrainOptions(epochs=1, batch_size=2, patience=0),
            "patch": 16,
            "patches": 4,
        }
        pieces = [read_image(path).pixels[100:180, 100:196] for path in cls.demo_images()[:2]]
        return {"params": params, "data": pieces, "inputs": pieces[0]}

    def shipped_name(self) -> str | None:
        """Those of the paper's model for this scale."""
        usual = self.attention in (None, "large_kernel") and self.arch == ArchOptions() and self.model == "cfsr"
        return f"cfsr_x{self.scale}" if usual else None

    def _fit_rule(self) -> Fitted | None:
        from pipelines.superres.engine import fit_bicubic

        return fit_bicubic(self.scale) if self.model == "bicubic" else None

    def _check(self) -> None:
        architecture(self.model, self.arch)
        check_values(
            scale=self.scale,
            patch=self.patch,
            patches=self.patches,
            memory=self.memory,
            limit=self.limit,
            tile=self.tile,
        )
        check_attention(MODELS, self.model, self.attention)
        self.train.validate()

    @property
    def has_weights(self) -> bool:
        """Whether there is anything to save: bicubic interpolation has no weights."""
        return self.is_fitted and self.state.module is not None
