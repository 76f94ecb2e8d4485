"""The protocol of poses: motion that was not learned from, seen by known random cameras, lifted, and compared in mm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.base import Evaluation, Table
from pipelines.errors import NothingToMeasure
from pipelines.pose import engine
from pipelines.pose.material import identity, model_input, motion_of, view_of
from pipelines.pose.tally import Tally, measure

if TYPE_CHECKING:
    from pipelines.data.datasets.pose_types import Clip
    from pipelines.pose.pipeline import PoseLifter

__all__ = ["evaluate"]

_NAMES = ("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve", "pck_150", "auc")


def evaluate(m: PoseLifter, data: Any) -> Evaluation:
    """Measure a fitted lifter on clips that it has not learned from, beside the linear lifter and the mean pose.

    Raises:
        NothingToMeasure: every clip was learned from.
    """
    clips, notes = motion_of(m, data)
    known = set(m.state.trained.tolist()) | set(m.state.held.tolist())
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
    tallies = {name: Tally([]) for name in (m.model, "linear", "mean")}
    progress = m.run.progress
    for clip in fresh if progress is None else progress.track(fresh, label="clips measured"):
        for camera in range(m.views.cameras):
            notes += _measure(m, clip, camera, tallies)
    return _summary(m, fresh, tallies, notes)


def _measure(m: PoseLifter, clip: Clip, camera: int, tallies: dict[str, Tally]) -> list[str]:
    """Add one view of one clip to all tallies."""
    seen = view_of(m, clip, camera)
    joints, _ = model_input(seen.joints)
    answers = {
        m.model: engine.lift(m, m.state, joints)[0],
        "linear": m.state.linear.predict(joints[:, None]),
        "mean": np.broadcast_to(m.state.mean, (len(joints), *m.state.mean.shape)),
    }
    for name, points in answers.items():
        tallies[name].add(measure(clip.name, points, seen.truth, clip.valid, action=clip.action, subject=clip.subject))
    return [note for note in seen.notes if "outside" in note or "lost" in note]


def _summary(m: PoseLifter, clips: list[Clip], tallies: dict[str, Tally], notes: list[str]) -> Evaluation:
    own = tallies[m.model]
    figures = {name: _known(tally.figures()) for name, tally in tallies.items()}
    v = m.views
    moving = "moving along with the person" if v.follow else "standing still"
    noise = f"{v.noise_px:g} px of noise" if v.noise_px else "exact joints"
    missing = f", {100 * v.missing:g} % of them missing" if v.missing else ""
    protocol = (
        f"root-aligned, {v.cameras} random cameras a clip {moving}, {v.size[0]} x {v.size[1]} px, focal length "
        f"{v.focal:g} px, {v.distance[0]:g} to {v.distance[1]:g} m, {noise}{missing}, {m.fps:g} Hz; intervals by clip"
    )
    averaged = own.action_average() if all(clip.action for clip in clips) else {}
    actions = own.by("action") if averaged else {}
    details = {
        "action_average": _known(averaged),
        "by_action": {name: _known(found) for name, found in actions.items()},
        "by_joint_mpjpe": [float(one) for one in own.by_joint("mpjpe")],
    }
    rows: list[list[object]] = [
        [name, f"{found['mpjpe']:.1f}", f"{found['p_mpjpe']:.1f}"] for name, found in actions.items()
    ]
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
        data=f"{len(clips)} clips",
        metrics=figures[m.model],
        counts={"frames": own.frames, "clips": len(clips), "cameras": v.cameras},
        provenance=m.provenance(f"{len(clips)} clips"),
        intervals={
            name: (span.lo, span.hi) for name, span in own.intervals(seed=m.seed).items() if name in figures[m.model]
        },
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
        tables=[Table("By action", ["action", "MPJPE mm", "P-MPJPE mm"], rows)] if rows else [],
    )


def _known(found: Any) -> dict[str, float]:
    return {name: float(found[name]) for name in _NAMES if name in found and not math.isnan(found[name])}
