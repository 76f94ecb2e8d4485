"""Several cubes at once, of a folder or a list: one after the other, and a bad one does not stop the others."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Provenance, Result, Run, save_figure
from pipelines.denoise.reading import Source, several_sources
from pipelines.errors import ConfigError, InputError, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.denoise.pipeline import Denoiser
    from pipelines.denoise.result import Denoised
    from pipelines.evaluation.report import Report

__all__ = ["CubeItem", "DenoisedCubes", "Shown", "predict_several"]

_SHOWN = 4  # cubes that pictures are kept of
_TOLD = 3  # failures and names that one sentence tells


@dataclasses.dataclass(frozen=True)
class Shown:
    """One band of the middle of a cube before and after, (h, w) each: all that stays of it for pictures."""

    band: int
    noisy: NDArray[np.float32]
    clean: NDArray[np.float32]


@dataclasses.dataclass
class CubeItem:
    """One of several cubes: where it comes from, and once it was denoised, what was found out.

    Args:
        source: the cube before it is read.
        denoised: reads the cube anew, looks at it and plans its tiles; nothing of it is kept here.
        shape: bands, rows, columns.
        notes: what was noticed so far.
        facts: its noise, scale and tiles as plain values, empty until it was looked at.
        shown: for pictures, of the first cubes.
    """

    source: Source
    denoised: Callable[[], Denoised]
    shape: tuple[int, int, int]
    notes: tuple[str, ...]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    shown: Shown | None = None

    @property
    def name(self) -> str:
        """Its place in the folder, which the answer gets too."""
        return self.source.name

    def look(self, *, picture: bool) -> None:
        """Find out what is not known yet.

        Args:
            picture: denoise the middle, to show it.

        Raises:
            InputError: the cube turns out to be damaged, or without any value.
        """
        if not self.facts or (picture and self.shown is None):
            self._keep(self.denoised(), picture=picture)

    def save(self, path: Path, *, picture: bool) -> None:
        """Denoise and write the whole cube.

        Raises:
            InputError: the cube turns out to be damaged, or without any value.
            RunError: the disk is full or not writable.
        """
        new = [folder for folder in path.parents if not folder.exists()]  # the deepest first
        try:
            answer = self.denoised()
            answer.save(path)
        except BaseException:
            for folder in new:
                with contextlib.suppress(OSError):  # never made, or not empty
                    folder.rmdir()
            raise
        self._keep(answer, picture=picture)

    def _keep(self, answer: Denoised, *, picture: bool) -> None:
        from pipelines.denoise.plots import band_shown

        self.facts, self.notes = answer.facts(), answer.notes
        if picture and self.shown is None:
            self.shown = Shown(*band_shown(answer))


@dataclasses.dataclass
class DenoisedCubes(Result):
    """Several cubes and their clean twins, computed by ``save`` one after the other, so that memory holds one.

    ``items[i].denoised()`` gives one of them as ``predict`` gives a single cube.
    """

    items: list[CubeItem]
    failed: dict[str, str]
    model: str
    place: str
    provenance: Provenance
    run: Run
    others: int = 0

    default_name: ClassVar[str] = "clean"

    @property
    def failures(self) -> Mapping[str, str]:  # type: ignore[override]
        """Cubes that could not be denoised, and why."""
        return self.failed

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was chosen, filled and rounded, with the cubes that it is about, and what was left out."""
        about: dict[str, list[str]] = {}
        for item in self.items:
            for note in item.notes:
                about.setdefault(note, []).append(item.name)
        told = [f"{self._names(names)}: {note}" for note, names in about.items()]
        if self.others:
            files = "1 file is" if self.others == 1 else f"{self.others:,} files are"
            told.append(f"{files} passed over: no ending of a cube")
        return (*told, *(f"{name} is left out: {problem}" for name, problem in self.failed.items()))

    def _names(self, names: list[str]) -> str:
        if len(names) == len(self.items) > 1:
            return "all cubes"
        more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
        return f"{', '.join(names[:_TOLD])}{more}"

    def save(self, path: str | Path) -> Path:
        """Denoise and write every cube into a folder: its own format, its own name, at its place.

        A cube that turns out to be bad is left out and named in ``failures``; the others are written.

        Args:
            path: the folder.

        Raises:
            ConfigError: the name of a file, or the folder that the cubes come from.
            InputError: no cube could be denoised.
            RunError: the disk is full or not writable; cubes that were finished stay.

        Complexity: time of the cubes together, memory of the largest one.
        """
        from pipelines.data.formats.cube_writing import SUFFIXES

        target = Path(path)
        if target.suffix.lower() in {ending for every in SUFFIXES.values() for ending in every}:
            found = f"{len(self.items)} cubes"
            raise ConfigError("several cubes need a folder", where=target, found=found, cure="end it with a slash")
        for item in self.items:
            if item.source.path is not None and (target / item.name).resolve() == item.source.path.resolve():
                cure = "choose another folder with -o"
                raise ConfigError("the answer would replace its input", where=target / item.name, cure=cure)
        pictures = 0

        def write(item: CubeItem) -> None:
            nonlocal pictures
            item.save(target / item.name, picture=pictures < _SHOWN)
            pictures += item.shown is not None

        self._each(write)
        return target

    def _each(self, act: Callable[[CubeItem], None], *, enough: Callable[[], bool] = lambda: False) -> None:
        """Do something with one cube after the other; those that turn out to be bad are left out.

        Raises:
            InputError: all of them are.
        """
        items: list[CubeItem] = list(self.items)
        progress = self.run.progress
        track = progress.track(items, len(items), "cubes") if progress is not None else items
        for item in track:
            if enough():
                break
            try:
                act(item)
            except UserError as error:
                self.failed[item.name] = str(error)
                self.items.remove(item)
        if not self.items:
            raise _none_left(self.place, self.failed)

    def plot(self, path: str | Path | None = None) -> Figure:
        """One band of up to four cubes, before and after; with a path, also written there."""
        from pipelines.denoise.plots import cubes_figure

        figure = cubes_figure(self._shown(), self.model)
        if path is not None:
            save_figure(figure, path)
        return figure

    def _shown(self) -> list[tuple[str, Shown]]:
        def found() -> list[tuple[str, Shown]]:
            return [(item.name, item.shown) for item in self.items if item.shown is not None][:_SHOWN]

        most = min(_SHOWN, len(self.items))
        if len(found()) < most:
            self._each(lambda item: item.look(picture=True), enough=lambda: len(found()) == most)
        return found()

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what every cube is, its noise and its notes, and what failed."""
        self._look()
        cubes = [{"name": item.name, **item.facts, "notes": list(item.notes)} for item in self.items]
        return {
            "model": self.model,
            "cubes": cubes,
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def _look(self) -> None:
        if not all(item.facts for item in self.items):
            self._each(lambda item: item.look(picture=False))

    def fill_report(self, report: Report) -> None:
        """Add a slider between before and after for up to four cubes, and a table of all."""
        from pipelines.denoise.plots import grey_pair

        self._look()
        report.add_text(str(self), section="Cubes")
        for name, shown in self._shown():
            report.add_comparison(
                *grey_pair(shown.noisy, shown.clean),
                f"Band {shown.band} in the middle of {name}",
                names=("noisy", self.model),
                section=name,
                caption=f"Band {shown.band}, one grey scale for both. Move the slider to compare.",
            )
        head = ["cube", "bands", "rows", "columns", "type", "noise a band", "chi-square", "tiles"]
        rows = [_row(item) for item in self.items]
        told = (
            "Noise is the median over bands of the standard deviation that was estimated, in the unit of the cube. "
            "Chi-square is that of what is taken away, reduced, where the file holds the variance of the noise."
        )
        report.add_table(head, rows, section="What was done", caption=told)
        if self.failed:
            report.add_table(["cube", "why"], list(self.failed.items()), section="Left out")

    def __str__(self) -> str:
        told = ", ".join(f"{i.name} ({i.shape[0]} bands, {i.shape[1]:,} x {i.shape[2]:,})" for i in self.items[:_SHOWN])
        more = f" and {len(self.items) - _SHOWN:,} more" if len(self.items) > _SHOWN else ""
        failed = f"; {len(self.failed):,} could not be denoised" if self.failed else ""
        return f"{self.model}: {told}{more}{failed}"


def predict_several(d: Denoiser, inputs: Any) -> DenoisedCubes:
    """Open every cube of a folder or a list, one after the other, and keep none open.

    Args:
        d: a fitted denoiser; what is fitted later does not change the answer.
        inputs: a folder, or a list of paths, names and arrays (D, H, W).

    Raises:
        InputError: nothing there, or no cube can be read.
    """
    sources, others = several_sources(inputs)
    place = Path(inputs).resolve().name if isinstance(inputs, (str, Path)) else "the list"
    items: list[CubeItem] = []
    failed: dict[str, str] = {}
    for source in sources:
        try:
            cube = source.open(d)
        except UserError as error:
            failed[source.name] = str(error)
            continue
        items.append(CubeItem(source, _reader(d, source), cube.shape, cube.notes))
        del cube  # a cube that is loaded at once would otherwise stay until the next one is there
    if not items:
        raise _none_left(place, failed)
    return DenoisedCubes(
        items=items,
        failed=failed,
        model=d.model,
        place=place,
        provenance=d.provenance(items[0].name if len(sources) == 1 else f"{len(sources)} cubes of {place}"),
        run=d.run,
        others=others,
    )


def _reader(d: Denoiser, source: Source) -> Callable[[], Denoised]:
    from pipelines.denoise.predict import denoised

    return lambda: denoised(d, source.open(d))


def _none_left(place: str, failed: Mapping[str, str]) -> InputError:
    told = [f"{name}: {problem}" for name, problem in list(failed.items())[:_TOLD]]
    more = [f"and {len(failed) - _TOLD:,} more"] if len(failed) > _TOLD else []
    return InputError("no cube could be denoised", where=place, found=" ".join((*told, *more)))


def _row(item: CubeItem) -> list[object]:
    """What a report's table says of a cube that was looked at."""
    facts = item.facts
    known = [sigma for sigma in facts["noise"]["sigma"] if sigma is not None]
    typical = f"{np.median(known):.4g}" if known else ""
    chi = "" if facts["chi_square"] is None else f"{facts['chi_square']['value']:.2f}"
    return [item.name, *item.shape, facts["cube"]["dtype"], typical, chi, facts["tiles"]]
