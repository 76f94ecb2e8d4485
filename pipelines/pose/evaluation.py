"""The protocols of poses: motion that was not learned from, seen by known cameras, lifted, and compared in mm.

Motion capture is seen by random cameras; Human3.6M by its own, with the subjects that the field measures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.base import Evaluation, Table
from pipelines.data.datasets.pose_h36m import TEST, TRAIN, action_name
from pipelines.errors import InputError, NothingToMeasure
from pipelines.pose import engine
from pipelines.pose.material import View, identity, model_input, motion_of, view_of
from pipelines.pose.protocols import NAME, human36m, read_study, view
from pipelines.pose.tally import Tally, measure

if TYPE_CHECKING:
    from pipelines.data.datasets.pose_types import Clip
    from pipelines.pose.pipeline import PoseLifter

__all__ = ["evaluate"]

Figures = Mapping[str, Mapping[str, float]]
_NAMES = ("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve", "pck_150", "auc")


def evaluate(m: PoseLifter, data: Any) -> Evaluation:
    """Measure a fitted lifter on clips that it has not learned from, beside the linear lifter and the mean pose.

    Raises:
        NothingToMeasure: every clip was learned from.
        InputError: the model has learned from recordings that a protocol measures.
    """
    folder = human36m(data)
    if folder is not None:
        return _human36m(m, folder)
    clips, notes = motion_of(m, data)
    known = _learned(m)
    fresh = [clip for clip in clips if identity(clip) not in known]
    if len(fresh) < len(clips):
        notes.append(
            f"{len(clips) - len(fresh)} of {len(clips)} clips were learned from or chose the epoch: not measured"
        )
    if m.split.only:
        kept = [clip for clip in fresh if {clip.subject, clip.name, clip.action} & set(m.split.only)]
        notes.append(f"{len(kept)} of {len(fresh)} clips are of {', '.join(m.split.only)}: these are measured")
        fresh = kept
    if not fresh:
        raise NothingToMeasure("no clip is left to measure", where="data", found=f"{len(clips)} clips",
                               expected="motion that the model has not seen")  # fmt: skip
    tallies = _tallies(m)
    for clip in _tracked(m, fresh):
        for camera in range(m.views.cameras):
            notes += _measure(m, view_of(m, clip, camera), tallies, clip.action)
    v = m.views
    moving = "moving along with the person" if v.follow else "standing still"
    noise = ", ".join([*([] if v.noise_px else ["exact joints"]), *_added(m)])
    protocol = (
        f"root-aligned, {v.cameras} random cameras a clip {moving}, {v.size[0]} x {v.size[1]} px, focal length "
        f"{v.focal:g} px, {v.distance[0]:g} to {v.distance[1]:g} m, {noise}, {m.fps:g} Hz; intervals by clip"
    )
    return _summary(m, fresh, tallies, notes, protocol, cameras=v.cameras)


def _human36m(m: PoseLifter, folder: Path) -> Evaluation:
    """Protocols 1, 2 and 3: S9 and S11 as the real cameras saw them; means over actions beside those of all frames."""
    study = read_study(m, folder, TEST)
    taught = sum(identity(clip) in _learned(m) for clip in study.clips)
    if taught:
        raise InputError(f"the model has learned from what {NAME} measures", where=folder,
                         found=f"{taught} of {len(study.clips)} recordings of {', '.join(study.subjects)}",
                         cure=f"fit a model on this folder: it learns from {', '.join(TRAIN)} alone")  # fmt: skip
    notes = list(study.notes)
    clips = study.clips
    if m.split.only:
        wanted = set(m.split.only)
        clips = [one for one in clips if {one.subject, one.name, one.action, action_name(one.action)} & wanted]
        notes.append(f"{len(clips)} of {len(study.clips)} recordings are of {', '.join(m.split.only)}: these are "
                     "measured, which is not the whole protocol")  # fmt: skip
    if not clips:
        raise NothingToMeasure("no recording is left to measure", where="split.only", found=", ".join(m.split.only),
                               expected="subjects, recordings or actions of S9 and S11")  # fmt: skip
    trained = m.state.training
    if trained.get("protocol") != NAME:
        notes.append(f"the model did not learn from {NAME}: its figures are those of another training set")
    elif trained.get("joints") != study.joints:
        notes.append(f"the model learned from {trained.get('joints')}, and is measured on {study.joints}")
    kept = {id(clip) for clip in clips}
    seen = [one for one in study.seen if id(one.clip) in kept]
    tallies = _tallies(m)
    for one in _tracked(m, seen):
        notes += _measure(m, view(m, one), tallies, action_name(one.clip.action))
    cameras = len({one.name for one in seen})
    subjects = tuple(dict.fromkeys(clip.subject for clip in clips))
    added = "".join(f", {one}" for one in _added(m))
    less = f", without {', '.join(study.left_out)}" if study.left_out else ""
    protocol = (
        f"{NAME} protocols 1 (mpjpe, root-aligned), 2 (p_mpjpe, Procrustes) and 3 (n_mpjpe, scaled): "
        f"{', '.join(subjects)}, {cameras} real cameras, {study.joints}{added}, every frame at {m.fps:g} Hz{less}; "
        "*_actions are means over actions, the others over all frames; intervals by recording and camera"
    )
    found = _summary(m, clips, tallies, notes, protocol, cameras=cameras, field=True)
    found.details["protocol"] = {"name": NAME, "subjects": list(subjects), "joints": study.joints, "cameras": cameras,
                                 "fps": m.fps, "left_out": list(study.left_out)}  # fmt: skip
    return found


def _learned(m: PoseLifter) -> set[int]:
    return set(m.state.trained.tolist()) | set(m.state.held.tolist())


def _tallies(m: PoseLifter) -> dict[str, Tally]:
    return {name: Tally([]) for name in (m.model, "linear", "mean")}


def _tracked(m: PoseLifter, things: list[Any]) -> Iterable[Any]:
    progress = m.run.progress
    return things if progress is None else progress.track(things, label="clips measured")


def _added(m: PoseLifter) -> list[str]:
    """What is done to the joints before they are lifted, in words."""
    v = m.views
    noise = [f"{v.noise_px:g} px of noise"] if v.noise_px else []
    return [*noise, *([f"{100 * v.missing:g} % of them missing"] if v.missing else [])]


def _measure(m: PoseLifter, seen: View, tallies: dict[str, Tally], action: str) -> list[str]:
    """Add one view of one clip to all tallies."""
    clip = seen.clip
    joints, _ = model_input(seen.joints)
    answers = {
        m.model: engine.lift(m, m.state, joints)[0],
        "linear": m.state.linear.predict(joints[:, None]),
        "mean": np.broadcast_to(m.state.mean, (len(joints), *m.state.mean.shape)),
    }
    for name, points in answers.items():
        tallies[name].add(measure(clip.name, points, seen.truth, clip.valid, action=action, subject=clip.subject))
    return [note for note in seen.notes if "outside" in note or "lost" in note]


def _summary(
    m: PoseLifter,
    clips: list[Clip],
    tallies: dict[str, Tally],
    notes: list[str],
    protocol: str,
    *,
    cameras: int,
    field: bool = False,
) -> Evaluation:
    """The answer of the tallies; ``field`` puts means over actions beside those over all frames."""
    own = tallies[m.model]
    figures = {name: _figures(tally, field) for name, tally in tallies.items()}
    averaged = own.action_average() if all(clip.action for clip in clips) else {}
    actions = own.by("action") if averaged else {}
    details = {
        "action_average": _known(averaged),
        "by_action": {name: _known(found) for name, found in actions.items()},
        "by_joint_mpjpe": [float(one) for one in own.by_joint("mpjpe")],
    }
    intervals = {name: (span.lo, span.hi) for name, span in own.intervals(seed=m.seed).items()}
    if field:
        spans = own.intervals(actions=True, seed=m.seed)
        intervals |= {f"{name}_actions": (span.lo, span.hi) for name, span in spans.items()}
    curves = {name: tally.curve() for name, tally in tallies.items()}

    def bars() -> Any:
        from pipelines.pose.plots import bars_figure

        return bars_figure({name: found["mpjpe"] for name, found in figures.items()}, unit="mm", title="MPJPE")

    def pck() -> Any:
        from pipelines.pose.plots import pck_figure

        return pck_figure(curves)

    return Evaluation(
        model=m.model,
        protocol=protocol,
        data=f"{len(clips)} {'recordings' if field else 'clips'}",
        metrics=figures[m.model],
        counts={"frames": own.frames, "clips": len(clips), "cameras": cameras},
        provenance=m.provenance(f"{len(clips)} clips"),
        intervals={name: span for name, span in intervals.items() if name in figures[m.model]},
        baselines={name: figures[name] for name in ("linear", "mean")},
        details=details,
        notes=tuple(dict.fromkeys([*notes, *own.notes()])),
        facts={"clips": len(clips), "frames": sum(clip.frames for clip in clips)},
        figures=[
            (
                "Beside the baselines",
                "Mean error of the joints, of the model, the linear lifter and the mean pose",
                bars,
            ),
            ("Share of right joints", "Share of the joints that are right within each distance", pck),
        ],
        tables=_action_tables(own, actions, averaged, field),
    )


def _action_tables(own: Tally, actions: Figures, averaged: Mapping[str, float], field: bool) -> list[Table]:
    """Figures of each action; by the field's protocols with their means over actions and over all frames below."""
    if not actions:
        return []
    names = ("mpjpe", "p_mpjpe", "n_mpjpe") if field else ("mpjpe", "p_mpjpe")
    head = ["MPJPE mm", "P-MPJPE mm", "N-MPJPE mm"][: len(names)]
    held = dict(actions)
    if field:
        head = [f"protocol {number}, {name}" for number, name in enumerate(head, 1)]
        held |= {"mean over actions": averaged, "all frames": own.figures()}
    rows: list[list[object]] = [[name, *(f"{found[one]:.1f}" for one in names)] for name, found in held.items()]
    return [Table("By action", ["action", *head], rows)]


def _figures(tally: Tally, field: bool) -> dict[str, float]:
    """Figures over all frames, and where the field does so the means over actions."""
    found = _known(tally.figures())
    if field:
        found |= {f"{name}_actions": value for name, value in _known(tally.action_average()).items()}
    return found


def _known(found: Any) -> dict[str, float]:
    return {name: float(found[name]) for name in _NAMES if name in found and not math.isnan(found[name])}
