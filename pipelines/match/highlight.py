"""Passages for a report: the text around an answer with the answer marked, safe to put into HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.match.document_facts import one_line
from pipelines.match.passages import Answer, Span

if TYPE_CHECKING:
    from pipelines.evaluation.report import Report

__all__ = ["add_passages", "marked"]

_AROUND = 160  # characters of context on each side
_LONGEST = 600  # characters of a passage that are shown


def marked(text: str, span: Span, around: int = _AROUND) -> tuple[str, str, str]:
    """Return what stands before a span, the span and what follows, each as one line; context is cut at a blank.

    Complexity: O(around + length of the span).

    Example:
        >>> marked("First one. Second one. Third one.", (11, 22), around=8)
        ('… one.', 'Second one.', 'Third …')
    """
    begin, end = span
    before, after = text[max(begin - around, 0) : begin], text[end : end + around]
    if begin > around:
        within = not text[begin - around - 1].isspace() and not before[:1].isspace()  # of a word, which is left out
        before = f"… {before.split(maxsplit=1)[-1] if within and before.split() else before}"
    if end + around < len(text):
        within = not text[end + around].isspace() and not after[-1:].isspace()
        after = f"{after.rsplit(maxsplit=1)[0] if within and after.split() else after} …"
    return one_line(before, 0), one_line(text[begin:end], _LONGEST), one_line(after, 0)


def add_passages(
    report: Report,
    answers: Sequence[Answer],
    names: tuple[str, str],
    *,
    section: str,
    texts: tuple[str, str] | None = None,
) -> None:
    """Add pairs of passages to a report, each in its context and marked.

    The documents' text is data: it is escaped, whatever it holds; only the marks are HTML.

    Args:
        report: gets one paragraph a pair.
        answers: the pairs; nothing is added for none.
        names: of the two documents.
        section: title of the section.
        texts: the whole documents, to show what stands around; without them the passages stand alone.

    Example:
        >>> from pipelines.evaluation.report import Report
        >>> report = Report("Passages")
        >>> pair = Answer(0, 3, 0.8, "a < b", "b > a", (0, 5), (40, 45), True)
        >>> add_passages(report, [pair], ("one", "two"), section="Passages")
        >>> "<mark>a &lt; b</mark>" in report.render()
        True
    """
    from markupsafe import Markup

    for number, pair in enumerate(answers, 1):
        sides = []
        for side, name in enumerate(names):
            block = (pair.left_block, pair.right_block)[side]
            if texts is None:
                parts = ("", one_line((pair.left_text, pair.right_text)[side], _LONGEST), "")
            else:
                parts = marked(texts[side], (pair.left_span, pair.right_span)[side])
            line = Markup("{}, block {}: {} <mark>{}</mark> {}")
            sides.append(line.format(one_line(name, 80), block, *parts))
        told = f"{number}. Similarity {pair.similarity:.3f}" + (", each the other's best" if pair.mutual else "")
        # A report escapes what is no Markup; text of documents comes in through format() alone, which escapes it.
        report.add_text(Markup("<strong>{}</strong><br>{}<br>{}").format(told, *sides), section=section)
