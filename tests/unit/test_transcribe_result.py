"""What a transcription gives: files in their places, plain values, pictures whose words stand where they are heard."""

from __future__ import annotations

import itertools
import json
import pathlib

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from pipelines.base import Provenance
from pipelines.errors import ConfigError, InputError
from pipelines.evaluation.plots import to_png_bytes
from pipelines.evaluation.report import Report
from pipelines.transcribe.mel_picture import log_mel, mel
from pipelines.transcribe.plots import spectrogram_figure, wer_figure, words_figure
from pipelines.transcribe.result import Transcripts, busiest
from pipelines.transcribe.subtitles import to_json, to_srt, to_text, to_tsv, to_vtt
from pipelines.transcribe.words import Segment, Transcript, Word

RATE = 8000


def said(source: str, text: str = "good bye", start: float = 0.5, seconds: float = 3.0) -> Transcript:
    """Words of 0.3 s with gaps of 0.1 s; every third is unsure."""
    words = tuple(
        Word(word, start + 0.4 * i, start + 0.4 * i + 0.3, 0.4 if i % 3 == 2 else 0.9)
        for i, word in enumerate(text.split())
    )
    segments = (Segment(text, words[0].start, words[-1].end, words),) if words else ()
    return Transcript(source, seconds, segments, ("2 channels mixed to one: their mean",))


def sound(index: int, start: float, seconds: float) -> tuple[NDArray[np.float32], int]:
    noise = np.random.default_rng(index).normal(0, 0.1, round(seconds * RATE))
    return noise.astype(np.float32), RATE


def result(*items: Transcript, **options: object) -> Transcripts:
    provenance = Provenance.now(data="talks", model="samba", seed=0)
    return Transcripts(list(items), "samba", provenance, sound=sound, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("ending", "make"), [("txt", to_text), ("srt", to_srt), ("vtt", to_vtt), ("tsv", to_tsv)])
def test_one_recording_goes_into_the_file_named(tmp_path: pathlib.Path, ending: str, make: object) -> None:
    answer = result(said("a.wav", "naïve words"))
    path = answer.save(tmp_path / "new" / f"talk.{ending.upper()}")
    assert path.read_text("utf-8") == make(answer.items[0])  # type: ignore[operator]
    assert answer.default_name == "a.txt"


def test_json_holds_everything(tmp_path: pathlib.Path) -> None:
    answer = result(said("a.wav", "naïve words"), said("b.wav", ""), failed={"c.wav": "c.wav: no samples"})
    path = answer.save(tmp_path / "all.json")
    assert "naïve" in path.read_text("utf-8")
    read = json.loads(path.read_text("utf-8"))
    assert read == json.loads(json.dumps(answer.to_dict()))
    assert [one["text"] for one in read["transcripts"]] == ["naïve words", ""]
    assert read["transcripts"][0]["words"][1] == {
        "text": "words", "start": 0.9, "end": 1.2, "confidence": 0.9, "segment": 0
    }  # fmt: skip
    assert read["failures"] == {"c.wav": "c.wav: no samples"}
    assert read["notes"] == [
        "a.wav: 2 channels mixed to one: their mean",
        "b.wav: 2 channels mixed to one: their mean",
        "left out: c.wav: no samples",
    ]
    assert answer.failures == answer.failed


def test_recordings_of_a_folder_keep_their_places(tmp_path: pathlib.Path) -> None:
    names = ["a.wav", "deep/er/b.mp3", "same.wav", "same.mp3", "talk.v2.wav", "/abs/olute.wav", "../above.wav"]
    answer = result(*(said(name, f"from {i}") for i, name in enumerate(names)), formats=("txt", "srt", "json"))
    target = answer.save(tmp_path / "out")
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    stems = ["a", "deep/er/b", "same.wav", "same.mp3", "talk.v2", "olute", "above"]
    assert found == {f"{stem}.{kind}" for stem in stems for kind in ("txt", "srt", "json")}
    assert [(target / f"{stem}.txt").read_text() for stem in stems] == [f"from {i}\n" for i in range(len(names))]
    assert (target / "a.json").read_text("utf-8") == to_json(answer.items[0])
    assert not list(tmp_path.glob("above*"))


def test_names_that_fall_together_are_all_kept(tmp_path: pathlib.Path) -> None:
    answer = result(*(said(name, name) for name in ("/x/a.wav", "/y/a.wav", "A.wav", "2-a.wav")))
    target = answer.save(tmp_path / "out")
    texts = sorted(path.read_text().strip() for path in target.iterdir())
    assert texts == sorted(["/x/a.wav", "/y/a.wav", "A.wav", "2-a.wav"])
    assert len({path.name.casefold() for path in target.iterdir()}) == 4


def test_a_folder_of_one_recording_is_a_folder(tmp_path: pathlib.Path) -> None:
    answer = result(said("a.wav"), lenient=True, formats=("vtt",))
    assert answer.default_name == "transcripts"
    assert [path.name for path in answer.save(tmp_path / "out").iterdir()] == ["a.vtt"]
    assert str(answer) == "a.wav: good bye"


def test_nothing_is_written_where_it_does_not_fit(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="no such format") as caught:
        result(said("a.wav")).save(tmp_path / "a.docx")
    assert "txt, srt, vtt, tsv, json" in str(caught.value)
    with pytest.raises(ConfigError, match=r"several recordings need a folder.*2 recordings"):
        result(said("a.wav"), said("b.wav")).save(tmp_path / "a.srt")
    with pytest.raises(ConfigError, match="formats: transcripts have no such format"):
        result(said("a.wav"), said("b.wav"), formats=("txt", "doc")).save(tmp_path / "out")
    with pytest.raises(ConfigError, match="nothing to write"):
        result(said("a.wav"), said("b.wav"), formats=()).save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_text_is_what_people_see() -> None:
    assert str(result(said("a.wav"))) == "good bye"
    assert str(result(said("a.wav", ""))) == "a.wav: no speech"
    several = result(said("a.wav"), said("b.wav", ""), failed={"c.wav": "c.wav: empty"})
    assert str(several) == "a.wav: good bye\nb.wav: no speech\n1 could not be read"
    assert several.text == "good bye\n"


# Pictures -----------------------------------------------------------------------------------------------------------


def texts(figure: Figure) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Every text that is seen, and its box in pixels."""
    to_png_bytes(figure, dpi=100)
    seen = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible() and text.get_text()]
    return [(text.get_text(), text.get_window_extent().extents) for text in seen]


def test_words_stand_over_their_sound_and_not_over_each_other() -> None:
    item = said("a.wav", "please press one to mute or unmute yourself or two to lock the conference", seconds=12.0)
    figure = result(item).plot()
    boxes = texts(figure)
    placed = {name: box for name, box in boxes if name in item.text.split()}
    assert {name for name, _ in boxes} >= set(item.text.split())
    for word in item.words:
        if item.text.split().count(word.text) > 1:
            continue
        ax = next(a for a in figure.axes if a.get_images()[0].get_extent()[1] > word.start)
        left, right = (ax.transData.transform((at, 0))[0] for at in (word.start, word.end))
        box = placed[word.text]
        assert (box[0] + box[2]) / 2 == pytest.approx((left + right) / 2, abs=2)
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one!r} lies over {two!r}"
    width, height = figure.bbox.width, figure.bbox.height
    assert all(x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height for _, (x0, y0, x1, y1) in boxes)


def test_rows_show_all_of_the_sound_once() -> None:
    figure = spectrogram_figure(np.zeros(20 * RATE, np.float32), RATE, said("a", "one two " * 20).words, start=7.0)
    shown = [image.get_extent() for ax in figure.axes for image in ax.get_images()]
    assert shown[0][0] == pytest.approx(7.0)
    assert shown[-1][1] == pytest.approx(27.0, abs=0.02)
    assert all(one[1] == pytest.approx(two[0], abs=0.011) for one, two in itertools.pairwise(shown))


def test_a_tone_is_drawn_at_its_frequency_and_time() -> None:
    t = np.arange(2 * RATE) / RATE
    picture, step = log_mel(np.where(t < 1.0, np.sin(2 * np.pi * 1000 * t), 0.0).astype(np.float32), RATE)
    assert picture.shape == (64, 200)
    band = (int(picture[:, 50].argmax()) + 1) / 65 * float(mel(RATE / 2))
    assert band == pytest.approx(float(mel(1000.0)), rel=0.02)
    loud = picture.max(0) > -20
    assert loud.sum() * step == pytest.approx(1.0, abs=0.03)
    assert log_mel(np.zeros(800, np.float32), RATE)[0].max() < -60
    assert log_mel(np.zeros(0, np.float32), RATE)[0].shape == (64, 1)


def test_the_stretch_with_the_most_words() -> None:
    assert busiest([], 12.0, 20.0) == (0.0, 12.0)
    assert busiest([], 100.0, 20.0) == (0.0, 20.0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        starts = np.sort(rng.uniform(0, 119, 60))
        words = [Word("a", float(at), float(at) + 0.2, 1.0) for at in starts]
        begin, end = busiest(words, 120.0, 20.0)
        assert begin >= 0
        assert end == pytest.approx(begin + 20.0)
        assert end <= 120.0
        count = sum(begin <= word.start and word.end <= end for word in words)
        grid = max(sum(g <= w.start and w.end <= g + 20 for w in words) for g in np.arange(0, 100.01, 0.25))
        assert count >= grid - 1


def test_long_recordings_are_read_only_where_they_are_drawn() -> None:
    asked: list[tuple[int, float, float]] = []

    def heard(index: int, start: float, seconds: float) -> tuple[NDArray[np.float32], int]:
        asked.append((index, start, seconds))
        return sound(index, start, seconds)

    answer = result(said("a.wav", "one two three", start=3000.0, seconds=7200.0))
    answer.sound = heard
    figure = answer.plot()
    assert asked == [(0, pytest.approx(2999.8), pytest.approx(20.0))]
    assert "a.wav, 2999.8 to 3019.8 s of 7,200.0" in [name for name, _ in texts(figure)]


def test_pictures_without_sound_show_the_words(tmp_path: pathlib.Path) -> None:
    def gone(index: int, start: float, seconds: float) -> tuple[NDArray[np.float32], int]:
        raise InputError("no such file", where="a.wav")

    answer = result(said("a.wav"))
    for source in (None, gone):
        answer.sound = source
        assert {"good", "bye"} <= {name for name, _ in texts(answer.plot())}
    answer.plot(tmp_path / "a.svg")
    assert "bye" in (tmp_path / "a.svg").read_text()
    result(said("a.wav", "")).plot()
    result(said("a.wav", "", seconds=0.0)).plot()


def test_unsure_words_are_marked() -> None:
    figure = words_figure(said("a", "one two three four").words)
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert colours["one"] == colours["two"] == colours["four"] != colours["three"]
    assert len(figure.axes[0].lines) == 1
    assert len(figure.legends) == 1
    assert not words_figure(said("a", "one two").words).legends


def test_rates_by_class() -> None:
    rates = {"1-2": 0.4, "3-5": 0.2, "11+": 1.2}
    figure = wer_figure(rates, intervals={"1-2": (0.3, 0.5), "11+": (1.0, 1.5)}, counts={"1-2": 1234}, title="WER")
    ax = figure.axes[0]
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([40.0, 20.0, 120.0])  # type: ignore[attr-defined]
    assert ax.get_ylim()[1] > 150
    assert {"40.0", "20.0", "120.0", "1-2\n1,234", "3-5"} <= {name for name, _ in texts(figure)}
    with pytest.raises(InputError, match="nothing to draw"):
        wer_figure({})


def test_the_report_has_text_pictures_and_words() -> None:
    answer = result(
        said("a<b.wav", "good bye naïve"), said("b.wav", ""), said("c.wav", "word " * 300, seconds=130.0),
        failed={"d.wav": "d.wav: empty"},
    )  # fmt: skip
    report = Report("Speech")
    answer.fill_report(report)
    page = report.render()
    assert "a&lt;b.wav" in page
    assert "a<b.wav" not in page
    assert page.count("<img") == 3 + 2  # spectrograms of all, words of two
    wanted = [
        "good bye naïve",
        "No speech was found.",
        "left out: d.wav: empty",
        "The first 200 of 300 words",
        "the stretch with the most words",
        "Spectrogram with the words at their times: good bye naïve",
    ]
    assert [part for part in wanted if part not in page] == []
    assert page.count('<th scope="row">word</th>') == 200
