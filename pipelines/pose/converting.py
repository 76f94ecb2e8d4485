"""Joints of any format into files of another one, on another skeleton: what is lost or made is said. Loads no torch."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from pipelines.base import Provenance, Result, save_figure
from pipelines.data.datasets.brain_walk import natural
from pipelines.data.datasets.pose_conversion import convert as on_skeleton
from pipelines.data.datasets.pose_conversion import recognise
from pipelines.data.datasets.pose_mocap import open_mocap
from pipelines.data.datasets.pose_open import open_poses
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.formats.bvh_write import bvh_text
from pipelines.data.formats.pose import remarked
from pipelines.data.formats.pose_write import write_poses
from pipelines.errors import ConfigError, InputError
from pipelines.files import Content, atomic_write_all
from pipelines.pose.result_files import file_names
from pipelines.pose.tracks import Track

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.data.formats.pose_source import PoseReading
    from pipelines.evaluation.report import Report
    from pipelines.pose.pipeline import PoseLifter

__all__ = ["ENDINGS", "Converted", "Form", "convert"]

#: Kinds of files that are written; a folder gets files of one of them.
Form = Literal["npz", "json", "csv", "bvh"]
ENDINGS = tuple(f".{form}" for form in get_args(Form))
_MOCAP = (".bvh", ".amc", ".c3d")  # their hierarchies are kept where no skeleton is asked for
_PRINTED, _ROWS, _PICTURES = 20, 200, 4


@dataclasses.dataclass
class Converted(Result):
    """Clips that were read, on the skeleton that was asked for, and not yet written.

    Args:
        provenance: where they come from.
        groups: name of a file -> the clips that go into it where the output is a folder.
        form: kind of the files in a folder.
        failed: what could not be read or converted -> why.
        facts: what the clips are, for the report.
        keep: whether BVH files beside the one that was named are left as they are, where they exist.

    Example:
        >>> clip = Clip.of("walk", np.ones((50, 17, 2)), skeleton("coco17"), fps=25, unit="px", frame="image")
        >>> print(Converted(Provenance.now(data="walk.json", model="", seed=0), {"walk": [clip]}))
        1 clip, 50 frames
        walk: 50 frames at 25 Hz, 17 joints of coco17, 2-D in px, image axes
    """

    provenance: Provenance
    groups: dict[str, list[Clip]]
    form: str = "npz"
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    keep: bool = False
    _written: tuple[str, ...] = ()

    default_name: ClassVar[str] = "joints"

    @property
    def clips(self) -> list[Clip]:
        """All clips, in the order of their files."""
        return [clip for clips in self.groups.values() for clip in clips]

    @property
    def failures(self) -> Mapping[str, str]:  # type: ignore[override]
        """What could not be converted, and why."""
        return self.failed

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was lost, made or decided, what files do not hold, and what failed."""
        own = [f"{_label(clip)}: {note}" for clip in self.clips for note in clip.notes]
        failed = [f"left out: {why}" for why in self.failed.values()]
        return tuple(dict.fromkeys([*own, *self._written, *failed]))

    def save(self, path: str | Path) -> Path:
        """Write by the ending of the name; a name without one is a folder of one file for each input.

        .npz, .json and .csv hold every clip with unit, axes and skeleton; .bvh one clip a file (of several, each name
        is put before the ending).

        Returns:
            The path; of several BVH files the first one.

        Raises:
            ConfigError: another ending, nothing to write, or files that are there and to be kept.
            InputError: clips that the format cannot hold; nothing is written then.
            RunError: the disk is full or not writable.
        """
        target = Path(path)
        kind = target.suffix.lower()
        if not self.groups:
            raise ConfigError("there is nothing to write", where=target, found="no clip", expected="one or more")
        if kind and not target.is_dir():
            if kind not in ENDINGS:
                raise ConfigError("cannot write this kind of file", where=target, found=kind,
                                  expected=", ".join(ENDINGS))  # fmt: skip
            return self._write({target: self.clips}, kind)[0]
        files = {target / f"{name}.{self.form}": clips for name, clips in self.groups.items()}
        self._write(files, f".{self.form}")
        return target

    def _write(self, files: Mapping[Path, list[Clip]], kind: str) -> list[Path]:
        """Write whole files; what cannot be written is found before the first one is."""
        if kind == ".bvh":
            contents: dict[str | os.PathLike[str], Content] = {}
            for path, clips in files.items():
                for place, clip in zip(file_names(path, clips), clips, strict=True):
                    if clip.fps is None:
                        raise InputError("BVH needs the frame rate", where=_label(clip), found="none in the file",
                                         cure="say it with --read.fps")  # fmt: skip
                    contents[place], told = bvh_text(clip)
                    self._say(f"{place.name}: {note}" for note in told)
            there = [place for place in contents if place not in files and os.path.lexists(place)]
            if there and self.keep:
                raise ConfigError("a file of this name is there already", where=there[0],
                                  cure="choose another name or --overwrite")  # fmt: skip
            return atomic_write_all(contents)
        for path, clips in files.items():
            units = sorted({f"{clip.dims}-D in {clip.unit}" for clip in clips})
            if len(units) > 1:  # readers decide what the numbers of a file are for all of them at once
                raise InputError("joints of several kinds for one file", where=path, found=", ".join(units),
                                 expected="one of them", cure="write into a folder")  # fmt: skip
        for path, clips in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            apart, told = _distinct(clips)
            strange = sorted({clip.skeleton.name for clip in apart if recognise(clip.skeleton) is None})
            if strange and kind == ".csv":
                told.append(f"bones of {', '.join(strange)} not written: a table holds none, and is not read back")
            self._say(f"{path.name}: {note}" for note in (*told, *write_poses(path, apart)))
        return list(files)

    def _say(self, notes: Iterable[str]) -> None:
        self._written = tuple(dict.fromkeys((*self._written, *notes)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what each clip is; the joints themselves are in the saved files."""
        return {
            "clips": [_about(clip) for clip in self.clips],
            "frames": sum(clip.frames for clip in self.clips),
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """The first clip: 3-D poses at equal steps of time, or the joints of the middle frame with their names."""
        from pipelines.evaluation.plots import empty_figure

        figure = _picture(self.clips[0]) if self.groups else empty_figure("nothing could be converted")
        if path is not None:
            save_figure(figure, path)
        return figure

    def fill_report(self, report: Report) -> None:
        """Add what the clips are, and pictures of the first ones."""
        report.add_text(str(self), section="Clips")
        clips = self.clips
        head = ["clip", "person", "frames", "Hz", "skeleton", "joints", "missing", "unit", "axes"]
        rows = [[one[name] for name in ("name", "person", "frames", "fps", "skeleton", "joints", "missing_joints",
                                        "unit", "frame")] for one in map(_about, clips[:_ROWS])]  # fmt: skip
        more = f"The first {len(rows)} of {len(clips):,}." if len(rows) < len(clips) else ""
        if rows:
            report.add_table(head, rows, section="Clips", caption=more)
        for clip in clips[:_PICTURES]:
            report.add_figure(_picture(clip), f"Joints of {_label(clip)}", section=_label(clip))
        if self.facts:
            report.add_data_summary(self.facts)

    def __str__(self) -> str:
        clips = self.clips
        frames = sum(clip.frames for clip in clips)
        lines = [f"{len(clips)} clip{'s' if len(clips) != 1 else ''}, {frames:,} frame{'s' if frames != 1 else ''}"]
        lines += [_line(clip) for clip in clips[:_PRINTED]]
        if len(clips) > _PRINTED:
            lines.append(f"and {len(clips) - _PRINTED:,} more")
        return "\n".join([*lines, *([f"{len(self.failed)} could not be converted"] if self.failed else [])])


def convert(m: PoseLifter, inputs: Any, to: str | None = None, form: str = "npz") -> Converted:
    """Read joints and bring them to a skeleton; an input that cannot be is named and does not stop the rest.

    Args:
        m: says how files are read, and hears of the progress.
        inputs: as for `open_poses`.
        to: name of the skeleton; None keeps the one that each file has.
        form: kind of the files in a folder.

    Raises:
        InputError: nothing that could be read and converted, no such skeleton.
        ConfigError: no such kind of file.
    """
    if form not in get_args(Form):
        raise ConfigError("there is no such kind of file", where="form", found=form,
                          expected=", ".join(get_args(Form)))  # fmt: skip
    goal = None if to is None else skeleton(to).name
    given = list(inputs) if isinstance(inputs, (list, tuple)) and any(map(_is_path, inputs)) else [inputs]
    groups: dict[str, list[Clip]] = {}
    failed: dict[str, str] = {}
    last: InputError | None = None

    def take(name: str, read: Callable[[], list[Clip]]) -> None:
        nonlocal last
        try:
            clips = [_converted(clip, goal) for clip in read()]
        except InputError as error:
            last, failed[name] = error, str(error)
        else:
            groups[_free(name, groups)] = clips

    for source in m.run.progress.track(given, label="inputs read") if m.run.progress is not None else given:
        for name, read in _sources(source, m.read, goal):
            take(name, read)
    if last is not None and not groups:
        raise last
    clips = [clip for found in groups.values() for clip in found]
    told = str(given[0]) if len(given) == 1 and _is_path(given[0]) else f"{len(given)} inputs"
    facts = {"clips": len(clips), "frames": sum(clip.frames for clip in clips)}
    keep = m.run.progress is not None and not m.run.overwrite  # in Python, saving replaces what is there
    return Converted(Provenance.now(data=told, model="", seed=m.seed), groups, form, failed, facts, keep)


def _is_path(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike))


def _sources(source: Any, reading: PoseReading, goal: str | None) -> list[tuple[str, Callable[[], list[Clip]]]]:
    """Name of an output file -> how to read what goes into it; a folder of motion capture is read file by file."""
    if not _is_path(source):
        return [("joints", lambda: open_poses(source, reading, mixed=True))]
    path = Path(source)
    if not path.is_dir():
        return [(path.stem, lambda: _file(path, reading, goal))]
    inside = sorted((one for one in path.rglob("*") if one.is_file() and not _hidden(one, path)), key=_order)
    others = [one for one in inside if one.suffix.lower() in (".json", ".npz", ".npy", ".csv", ".tsv", ".txt")]
    if others or not inside:
        return _grouped(path, reading)
    found = [one for one in inside if one.suffix.lower() in _MOCAP]
    if not found:
        return _grouped(path, reading)  # whose reader says what it looks for
    return [("-".join(one.relative_to(path).with_suffix("").parts), lambda one=one: _file(one, reading, goal))
            for one in found]  # fmt: skip


def _grouped(folder: Path, reading: PoseReading) -> list[tuple[str, Callable[[], list[Clip]]]]:
    """The clips of a folder, those of one name (the persons of a video) in one file."""
    groups: dict[str, list[Clip]] = {}
    try:
        clips = open_poses(folder, reading, mixed=True)
    except InputError as error:
        found = error

        def refuse() -> list[Clip]:
            raise found

        return [(folder.name, refuse)]
    for clip in clips:
        stem = re.sub(r"[^\w.+-]+", "-", clip.name.removesuffix(Path(clip.name).suffix)).strip("-.")
        groups.setdefault(stem or "joints", []).append(clip)
    return [(name, lambda held=held: held) for name, held in groups.items()]


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _order(path: Path) -> Any:
    return natural(str(path))


def _file(path: Path, reading: PoseReading, goal: str | None) -> list[Clip]:
    """The clips of a file; motion capture on its own hierarchy, where that leads to the skeleton asked for."""
    if path.suffix.lower() not in _MOCAP or reading.mapping is not None:
        return open_poses(path, reading, mixed=True)
    own = _mocap(path, reading)
    if goal is None or all(recognise(clip.skeleton) == goal for clip in own):
        return own
    return open_poses(path, reading, mixed=True)  # which knows what hierarchies of known families become


def _mocap(path: Path, reading: PoseReading) -> list[Clip]:
    if reading.unit not in ("auto", "m", "cm", "mm") or reading.up == "-y":
        return open_poses(path, reading, mixed=True)  # which refuses them
    clips = open_mocap(
        path,
        target=None,
        units=None if reading.unit == "auto" else reading.unit,
        up=None if reading.up == "auto" else reading.up,
        fps=reading.fps if path.suffix.lower() == ".amc" else None,
        accept_truncated=reading.accept_truncated,
    )
    kept = [clip for clip in clips if reading.person in (None, clip.person)]
    if not kept:
        found = "persons " + ", ".join(str(clip.person) for clip in clips[:12])
        raise InputError(f"no person {reading.person}", where=path.name, found=found, expected="one of them")
    return [remarked(_rated(_named(clip), reading.fps)) for clip in kept]


def _named(clip: Clip) -> Clip:
    """The clip with the name of its skeleton, where its joints are those of a known one."""
    known = recognise(clip.skeleton)
    return clip if known is None else clip.but(skeleton=skeleton(known))


def _rated(clip: Clip, fps: float | None) -> Clip:
    if fps is None or (clip.fps is not None and abs(clip.fps - fps) <= 1e-3 * fps):
        return clip
    told = f"{fps:g} Hz as was said; the file says {clip.fps:g} Hz" if clip.fps is not None else f"{fps:g} Hz, as said"
    return clip.but(told, fps=fps)


def _converted(clip: Clip, goal: str | None) -> Clip:
    if goal is None:
        return clip
    if clip.skeleton.joints == skeleton(goal).joints:
        return on_skeleton(clip, goal)
    made = on_skeleton(clip, goal)
    if clip.dims == 2 and any("mean of" in note for note in made.notes[len(clip.notes) :]):
        return made.but("means of image points stand for the image of the mean: exact for distant cameras only")
    return made


def _free(name: str, taken: Mapping[str, Any]) -> str:
    out, number = name, 1
    while out in taken:
        number += 1
        out = f"{number}-{name}"
    return out


def _distinct(clips: list[Clip]) -> tuple[list[Clip], list[str]]:
    """Clips of which no two have the same name and person: a file could not keep them apart."""
    seen: set[tuple[str, int]] = set()
    out: list[Clip] = []
    notes: list[str] = []
    for clip in clips:
        name, number = clip.name, 1
        while (name, clip.person) in seen:
            number += 1
            name = f"{clip.name} ({number})"
        seen.add((name, clip.person))
        if name != clip.name:
            notes.append(f"a further clip called {clip.name} is called {name}")
        out.append(clip if name == clip.name else clip.but(name=name))
    return out, notes


def _label(clip: Clip) -> str:
    return f"{clip.name}, person {clip.person}" if clip.person else clip.name


def _line(clip: Clip) -> str:
    rate = "an unknown frame rate" if clip.fps is None else f"{clip.fps:.6g} Hz"
    lost = int((~clip.valid).sum())
    missing = f", {lost:,} of {clip.valid.size:,} missing" if lost else ""
    frames = f"{clip.frames:,} frame{'s' if clip.frames != 1 else ''}"
    return (
        f"{_label(clip)}: {frames} at {rate}, {len(clip.skeleton)} joints of {clip.skeleton.name}{missing}, "
        f"{clip.dims}-D in {clip.unit}, {clip.frame} axes"
    )


def _about(clip: Clip) -> dict[str, Any]:
    return {
        "name": clip.name,
        "person": clip.person,
        "frames": clip.frames,
        "fps": clip.fps,
        "dims": clip.dims,
        "unit": clip.unit,
        "frame": clip.frame,
        "skeleton": clip.skeleton.name,
        "joints": len(clip.skeleton),
        "missing_joints": int((~clip.valid).sum()),
    }


def _picture(clip: Clip) -> Figure:
    from pipelines.pose.plots import skeleton_figure, strip_figure

    if clip.dims == 2:
        return skeleton_figure(clip, frame=int(np.argmax(clip.valid.sum(1))))
    root = clip.skeleton.root
    there = clip.valid[:, root]
    start = np.where(there[:, None], clip.points[:, root], np.float32(0))
    axes: Literal["camera", "world"] = "world" if clip.frame == "world" else "camera"
    return strip_figure(Track(clip.name, clip.points - start[:, None], clip.valid, clip.skeleton, clip.fps, axes,
                              person=clip.person))  # fmt: skip
