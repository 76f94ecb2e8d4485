"""From images to their enlargements: headers are read at once, pixels when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.data.errors import UserError
from pipelines.errors import InputError
from pipelines.superres.reading import sources
from pipelines.superres.result import Enlargement, Pictures

if TYPE_CHECKING:
    from pipelines.superres.pipeline import SuperResolver


def predict(r: SuperResolver, inputs: Any) -> Pictures:
    """Plan the enlargement of every image.

    Raises:
        InputError: an image that cannot be read, or no image of a folder can.
    """
    found, lenient = sources(inputs)
    items: list[Enlargement] = []
    failures: dict[str, str] = {}
    for source in found:
        try:
            items.append(Enlargement.plan_of(r, source))
        except UserError as error:
            if not lenient:
                raise
            failures[source.name] = str(error)
    if not items:
        raise InputError(
            "no image of this folder can be enlarged", where=inputs, found=" ".join(failures.values()) or None
        )
    state = r.state
    name = found[0].name if len(found) == 1 else f"{len(found)} images"
    return Pictures(
        items=items,
        model=r.model,
        scale=state.scale,
        provenance=r.provenance(name),
        lenient=lenient,
        failed=failures,
        run=r.run,
    )
