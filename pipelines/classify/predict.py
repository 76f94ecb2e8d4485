"""From series to labels, conformal sets and the shapes that told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.classify.engine import Fitted
from pipelines.classify.result import MOST_SHOWN, Classification, Shape

if TYPE_CHECKING:
    from pipelines.classify.pipeline import Classifier
    from pipelines.data.formats.labelled_types import LabelledSeries

_SHAPES = 3  # shown a series


def predict(c: Classifier, data: LabelledSeries) -> Classification:
    """Label every series; labels that the data has are kept as the truth beside the answers."""
    fitted = c.state
    probabilities = fitted.probabilities(data)
    notes = [*data.notes]
    if fitted.sets is None:
        notes.append("no series were held out while fitting: a conformal set holds all labels")
        inside = np.ones(probabilities.shape, bool)
    else:
        inside = fitted.sets(probabilities, c.interval)
        if not np.isfinite(fitted.sets.threshold(c.interval)):
            notes.append(
                f"{len(fitted.sets.scores)} held-out series are too few for {100 * c.interval:g} % sets, which hold all"
            )
    notes += _short(fitted, data)
    shown = data.subset(range(min(MOST_SHOWN, len(data))))
    return Classification(
        ids=data.ids,
        classes=fitted.classes,
        probabilities=probabilities,
        inside=inside,
        model=c.model,
        interval=c.interval,
        provenance=c.provenance(data.source),
        series=_with_components(fitted, data),
        variables=(*data.variables, *(fitted.components.names() if fitted.components else ())),
        truth=data.labels,
        shapes=explain(fitted, shown) if fitted.tokeniser is not None else (),
        notes=tuple(dict.fromkeys(notes)),
        facts=facts(data),
    )


def _with_components(fitted: Fitted, data: LabelledSeries) -> tuple[NDArray[np.float32], ...]:
    """The series in their own units, and below them the components, which shapes may lie in."""
    if not fitted.components:
        return data.series
    count = len(data.variables)
    return tuple(np.concatenate([one, fitted.prepared(one)[count:]]) for one in data.series)


def _short(fitted: Fitted, data: LabelledSeries) -> list[str]:
    """Series that are shorter than a motif have no shape tokens; their values alone tell."""
    if fitted.tokeniser is None:
        return []
    length = fitted.tokeniser.motifs.length
    count = int((data.lengths < length).sum())
    return (
        [f"{count} of {len(data)} series are shorter than a motif ({length} steps): judged by values alone"]
        if count
        else []
    )


def facts(data: LabelledSeries) -> dict[str, Any]:
    """What a set of series is, for a report."""
    lengths = data.lengths
    counts = {name: sum(label == name for label in data.labels or ()) for name in data.classes}
    return {
        "source": data.source,
        "series": len(data),
        "variables": ", ".join(data.variables[:12]) + (" ..." if len(data.variables) > 12 else ""),
        "steps": f"{lengths.min()} to {lengths.max()}" if lengths.min() != lengths.max() else int(lengths[0]),
        "values not measured": data.missing,
        **({"classes": ", ".join(f"{name} ({count:,})" for name, count in counts.items())} if counts else {}),
        **({"groups": len(set(data.groups))} if data.groups else {}),
    }


@torch.no_grad()
def explain(fitted: Fitted, data: LabelledSeries) -> tuple[tuple[Shape, ...], ...]:
    """The shape tokens whose absence lowers the predicted class's log-odds most, at most three a series.

    Every token is taken away in turn and the rest judged again: what the model loses, not what it looks at.
    O(P) passes a series, P shape tokens.
    """
    if fitted.tokeniser is None or fitted.module is None:
        return ()
    series = fitted.scaled(data)
    tokens = {name: torch.from_numpy(value) for name, value in fitted.tokeniser(series).items()}
    device = next(fitted.module.parameters()).device
    found = []
    for n, one in enumerate(series):
        single = {name: value[n : n + 1].to(device) for name, value in tokens.items()}
        whole = fitted.module(**single)[0].double()
        label = int(whole.argmax())
        without = _without_each(fitted.module, single)
        fall = (_log_odds(whole, label) - _log_odds(without, label)).cpu().numpy()
        found.append(_shapes_of(fitted, one, single["shape_place"][0].cpu().numpy(), fall))
    return tuple(found)


def _without_each(module: torch.nn.Module, single: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits (P, C) of one series with each shape token hidden in turn."""
    valid = single["shape_valid"]
    count = valid.shape[1]
    hidden = valid & ~torch.eye(count, dtype=torch.bool, device=valid.device)
    many = {name: value.expand(count, *value.shape[1:]) for name, value in single.items()} | {"shape_valid": hidden}
    return module(**many).double()


def _log_odds(logits: torch.Tensor, label: int) -> torch.Tensor:
    others = [i for i in range(logits.shape[-1]) if i != label]
    return logits[..., label] - logits[..., others].logsumexp(-1)


def _shapes_of(
    fitted: Fitted, one: NDArray[np.float32], place: NDArray[np.float32], fall: NDArray[np.float64]
) -> tuple[Shape, ...]:
    if fitted.tokeniser is None:
        return ()
    motifs, length = fitted.tokeniser.motifs, one.shape[1]
    shapes: list[Shape] = []
    for p in np.argsort(-fall, kind="stable"):
        begin = round(float(place[p, 0]) * length)
        taken = any(s.variable == motifs.variable[p] and abs(s.begin - begin) < motifs.length // 2 for s in shapes)
        if fall[p] <= 0 or len(shapes) == _SHAPES:
            break
        if taken or length < motifs.length:
            continue
        variable = int(motifs.variable[p])
        window = one[variable, begin : begin + motifs.length].astype(np.float64)
        laid = motifs.values[p] * window.std() + window.mean()
        own = variable < len(fitted.variables)  # a component has no other units than the model's
        mean, deviation = (fitted.scaler.mean[variable], fitted.scaler.deviation[variable]) if own else (0.0, 1.0)
        prior, label = float(fitted.tokeniser.shape_prior[p]), fitted.classes[int(motifs.label[p])]
        shapes.append(Shape(variable, begin, laid * deviation + mean, prior, float(fall[p]), label))
    return tuple(shapes)
