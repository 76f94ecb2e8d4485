"""What ``predict`` returns: enlargements that are computed tile by tile when they are saved, shown or asked for."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Provenance, Result, Run, save_figure
from pipelines.data.errors import UserError
from pipelines.errors import ConfigError
from pipelines.tiling import Plan, run_tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.data.formats.image_types import ImageRows, Picture
    from pipelines.evaluation.report import Report
    from pipelines.superres.engine import Fitted
    from pipelines.superres.pipeline import SuperResolver
    from pipelines.superres.reading import Source

__all__ = ["Detail", "Enlargement", "Pictures"]

Pixels = NDArray[Any]
_DETAIL = 96  # sides of the piece that a picture shows, in pixels of the small image
_SEARCHED = 1024  # rows in the middle of an image that are searched for it
_SHOWN = 4
#: Grey levels of 255 that one step of an uncertainty map stands for.
UNCERTAINTY_STEP = 0.25


@dataclasses.dataclass(frozen=True)
class Detail:
    """A piece of an image: where it lies, as it is (h, w, C), and enlarged by bicubic interpolation and the model."""

    row: int
    column: int
    small: Pixels
    bicubic: Pixels
    large: Pixels


@dataclasses.dataclass
class Enlargement:
    """One image and how it will be enlarged.

    ``notes`` grows as things are found out.
    """

    source: Source
    fitted: Fitted
    opener: Callable[[], ImageRows]
    height: int
    width: int
    channels: int
    dtype: np.dtype
    alpha: bool
    plan: Plan
    ensemble: bool
    half: bool
    threads: Callable[[], object]
    notes: tuple[str, ...] = ()
    _detail: Detail | None = None

    @classmethod
    def plan_of(cls, r: SuperResolver, source: Source) -> Enlargement:
        """Read an image's header and plan its tiles.

        Raises:
            InputError: the image cannot be read.
            ConfigError: not enough memory is allowed for one tile.
        """

        def opener() -> ImageRows:
            return source.open(r)

        with opener() as image:
            plan = r.state.plan(
                image.height,
                image.width,
                memory=r.memory,
                tile=r.tile,
                channels=image.channels + r.ensemble,
                itemsize=image.dtype.itemsize,
            )
            return cls(
                source=source,
                fitted=r.state,
                opener=opener,
                height=image.height,
                width=image.width,
                channels=image.channels,
                dtype=image.dtype,
                alpha=image.has_alpha,
                plan=plan,
                ensemble=r.ensemble,
                half=r.precision == "bf16-mixed",
                threads=r.start_torch,
                notes=tuple(f"{source.name}: {note}" for note in image.meta.notes),
            )

    @property
    def scale(self) -> int:
        """The factor."""
        return self.fitted.scale

    @property
    def size(self) -> tuple[int, int, int]:
        """(H, W, C) of the answer."""
        return self.height * self.scale, self.width * self.scale, self.channels

    def run(self, write: Callable[..., object], progress: Callable[[int, int], object] | None = None) -> None:
        """Enlarge band by band: ``write(row, band)``, with ``ensemble`` also the band of the uncertainty map."""
        self.threads()
        with self.opener() as image:
            run_tiles(self.plan, image.rows, self._enlarged, write, scale=self.scale, progress=progress)

    def _enlarged(self, block: Pixels) -> Pixels | tuple[Pixels, Pixels]:
        return self.fitted.enlarge(block, alpha=self.alpha, ensemble=self.ensemble, half=self.half)

    def picture(self) -> Picture:
        """The whole answer in memory.

        Raises:
            InputError: the file turns out to be damaged.
        """
        from pipelines.data.formats.image_types import Picture

        whole = np.empty(self.size, self.dtype)

        def write(row: int, band: Pixels, *_: Pixels) -> None:
            whole[row : row + len(band)] = band

        self.run(write)
        with self.opener() as image:
            meta = image.meta
        return Picture(whole[..., :-1], whole[..., -1], meta) if self.alpha else Picture(whole, None, meta)

    def save(self, path: Path, progress: Callable[[int, int], object] | None = None) -> list[Path]:
        """Write the answer, and with ``ensemble`` NAME.uncertainty.png beside it, band by band; both or neither.

        Raises:
            InputError: the file turns out to be damaged.
            ConfigError: a format that cannot hold this image.
            RunError: the disk is full or not writable.
        """
        from contextlib import ExitStack

        from pipelines.data.formats.image_types import ImageMeta
        from pipelines.data.formats.image_write import ImageWriter
        from pipelines.files import write_failure

        with self.opener() as image:
            meta = image.meta
        height, width, channels = self.size
        written = [path]
        try:
            with ExitStack() as stack:
                target = stack.enter_context(ImageWriter(path, height, width, channels, self.dtype, meta))
                writers = [target]
                if self.ensemble:
                    written.append(path.with_name(f"{path.stem}.uncertainty.png"))
                    extra = ImageWriter(written[1], height, width, 1, np.uint8, ImageMeta())
                    writers.append(stack.enter_context(extra))

                def write(row: int, *bands: Pixels) -> None:
                    for writer, band in zip(writers, bands, strict=True):
                        writer.write(band)

                self.run(write, progress)
        except OSError as error:
            raise write_failure(error, path) from error
        self.notes = tuple(dict.fromkeys((*self.notes, *(f"{self.source.name}: {n}" for n in target.notes))))
        return written

    def detail(self) -> Detail:
        """The piece with the most structure, of the middle of large images."""
        if self._detail is None:
            self._detail = self._find_detail()
        return self._detail

    def _find_detail(self) -> Detail:
        self.threads()
        begin = max(0, (self.height - _SEARCHED) // 2)
        halo = self.fitted.reach or 0
        with self.opener() as image:
            rows = image.rows(begin, min(self.height, begin + _SEARCHED))
        row, column = busiest(rows[..., : self.channels - self.alpha], _DETAIL)
        high, wide = min(_DETAIL, rows.shape[0]), min(_DETAIL, rows.shape[1])
        top, left = max(0, row - halo), max(0, column - halo)
        block = rows[top : row + high + halo, left : column + wide + halo]
        made = [
            fitted.enlarge(block, alpha=self.alpha, half=self.half) for fitted in (bicubic(self.scale), self.fitted)
        ]
        s = self.scale
        cut = np.s_[s * (row - top) : s * (row - top + high), s * (column - left) : s * (column - left + wide)]
        small = rows[row : row + high, column : column + wide]
        return Detail(begin + row, column, small, np.asarray(made[0])[cut], np.asarray(made[1])[cut])

    def facts(self) -> dict[str, Any]:
        """What it is, for a report."""
        height, width, _ = self.size
        kind = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}[self.channels]
        return {
            "image": self.source.name,
            "from": f"{self.width:,} x {self.height:,}",
            "to": f"{width:,} x {height:,}",
            "pixels": f"{kind}, {8 * self.dtype.itemsize} bit",
            "tiles": str(self.plan),
        }


def bicubic(scale: int) -> Fitted:
    """The baseline that stands beside every answer."""
    from pipelines.superres.engine import fit_bicubic

    return fit_bicubic(scale)


def busiest(pixels: Pixels, side: int) -> tuple[int, int]:
    """Where the piece of ``side`` pixels with the largest differences between neighbours begins.

    Example:
        >>> image = np.zeros((64, 64, 1), np.uint8); image[40:56, 8:24] = np.indices((16, 16)).sum(0)[..., None] % 2
        >>> busiest(image, 16)
        (40, 8)
    """
    grey = pixels.astype(np.float32).mean(2)
    change = np.zeros_like(grey)
    change[1:] += np.abs(np.diff(grey, axis=0))
    change[:, 1:] += np.abs(np.diff(grey, axis=1))
    sums = np.pad(change.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))
    high, wide = min(side, grey.shape[0]), min(side, grey.shape[1])
    total = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    row, column = np.unravel_index(int(total.argmax()), total.shape)
    return int(row), int(column)


@dataclasses.dataclass
class Pictures(Result):
    """Enlargements of one or several images; pixels are computed by ``save``, ``picture`` and ``plot``."""

    items: list[Enlargement]
    model: str
    scale: int
    provenance: Provenance
    lenient: bool
    failed: dict[str, str]
    run: Run

    @property
    def failures(self) -> Mapping[str, str]:  # type: ignore[override]
        """Images of a folder that could not be enlarged, and why."""
        return self.failed

    @property
    def default_name(self) -> str:  # type: ignore[override]
        """NAME-x4.png, or a folder for several images."""
        one = Path(self.items[0].source.name)
        return f"{one.stem}-x{self.scale}.png" if self._single else f"x{self.scale}"

    @property
    def _single(self) -> bool:
        return len(self.items) == 1 and not self.lenient

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was converted on the way, and what failed."""
        told = [note for item in self.items for note in item.notes]
        if any(item.ensemble for item in self.items):
            told.append(
                "the image is the mean of eight answers; one step of NAME.uncertainty.png is a deviation of "
                f"{UNCERTAINTY_STEP:g} grey levels of 255 among them, 255 steps stand for more too"
            )
        told += [f"left out: {problem}" for problem in self.failed.values()]
        return tuple(dict.fromkeys(told))

    def picture(self) -> Picture:
        """Pixels of the only image, in memory.

        Raises:
            ConfigError: there are several.
        """
        if len(self.items) > 1:
            raise ConfigError("there are several images", where="picture", cure="take items[i].picture()")
        return self.items[0].picture()

    def save(self, path: str | Path) -> Path:
        """Enlarge and write: one image into a file (PNG, JPEG, WebP, TIFF by its ending), several into a folder.

        Images of a folder keep their place in it and their names, as PNG. One that turns out to be damaged is left
        out, named in ``failures``, and the others are written.

        Raises:
            InputError: the image, or every image of a folder, turns out to be damaged.
            ConfigError: another ending, or a format that cannot hold the image.
            RunError: the disk is full or not writable.
        """
        target = Path(path)
        if self._single:
            self._save_one(self.items[0], target)
            return target
        if target.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"):
            raise ConfigError(f"{len(self.items)} images need a folder", where=target, cure="end the name with a slash")
        for item in list(self.items):
            place = (target / item.source.name).with_suffix(".png")
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._save_one(item, place)
            except UserError as error:
                if not self.lenient or len(self.items) == 1:
                    raise
                self.failed[item.source.name] = str(error)
                self.items.remove(item)
        return target

    def _save_one(self, item: Enlargement, place: Path) -> None:
        progress = self.run.progress
        if progress is None or item.plan.tiles < 2:
            item.save(place)
            return
        with progress.bar(item.source.name, item.plan.tiles) as bar:
            item.save(place, lambda *_: bar.advance())

    def plot(self, path: str | Path | None = None) -> Figure:
        """The piece with the most structure of up to four images: as it is, bicubic, by the model."""
        from pipelines.superres.plots import details_figure

        figure = details_figure([(item.source.name, item.detail()) for item in self.items[:_SHOWN]], self.model)
        if path is not None:
            save_figure(figure, path)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Plain values: sizes, and a sum of a piece of each answer."""
        return {
            "model": self.model,
            "scale": self.scale,
            "pictures": [self._entry(item) for item in self.items],
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def _entry(self, item: Enlargement) -> dict[str, Any]:
        height, width, channels = item.size
        detail = item.detail()
        return {
            "name": item.source.name,
            "height": height,
            "width": width,
            "channels": channels,
            "bits": 8 * item.dtype.itemsize,
            "tiles": item.plan.tiles,
            "detail": {
                "row": detail.row,
                "column": detail.column,
                "sha256": hashlib.sha256(detail.large.tobytes()).hexdigest(),
            },
        }

    def fill_report(self, report: Report) -> None:
        """Add a slider between bicubic interpolation and the model for up to four images, and what was done."""
        from pipelines.superres.plots import enlarged_png

        report.add_text(str(self), section="Pictures")
        for item in self.items[:_SHOWN]:
            detail = item.detail()
            report.add_comparison(
                enlarged_png(detail.bicubic),
                enlarged_png(detail.large),
                f"The piece of {item.source.name} with the most structure, enlarged {self.scale} times",
                names=("bicubic", self.model),
                section=item.source.name,
                caption=f"{detail.small.shape[1]} x {detail.small.shape[0]} pixels from column {detail.column:,}, "
                f"row {detail.row:,}. Move the slider to compare.",
            )
        head = list(self.items[0].facts())
        rows = [list(item.facts().values()) for item in self.items]
        report.add_table(head, rows, section="What was done")

    def __str__(self) -> str:
        told = ", ".join(
            f"{i.source.name} {i.width:,} x {i.height:,} to {i.size[1]:,} x {i.size[0]:,}" for i in self.items[:_SHOWN]
        )
        more = f" and {len(self.items) - _SHOWN} more" if len(self.items) > _SHOWN else ""
        failed = f"; {len(self.failed)} could not be enlarged" if self.failed else ""
        return f"{self.model} x{self.scale}: {told}{more}{failed}"
