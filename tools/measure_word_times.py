"""How well word times are found: files joined from single-word prompts, where every word's place is known.

    python tools/measure_word_times.py [MODEL_FOLDER] [--keep FOLDER]

Each file holds eight prompts of one word, parted by 0.2 to 0.8 s of silence. A word is where its prompt lies within 40
dB of the prompt's peak. Both ways are measured: `align` with the known text, and `predict` where the right word was
recognised. Of the model's training words too: the question is where they are, not which they are.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile

import numpy as np

from pipelines.data.formats.audio import read_audio, write_wav
from pipelines.transcribe.pipeline import Transcriber
from pipelines.transcribe.reading import corpus_of
from pipelines.transcribe.subtitles import read_srt

FILES, WORDS, RATE = 12, 8, 8000


def main() -> None:
    """Print the median of the absolute errors, and the share within 100 ms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a folder that `pipelines transcribe fit` wrote; default what ships")
    parser.add_argument("--keep", help="where the joined files and their subtitles are kept")
    asked = parser.parse_args()
    model = Transcriber.load(asked.model) if asked.model else Transcriber()
    errors: dict[str, list[float]] = {"align": [], "predict": [], "srt": []}
    told = heard = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(asked.keep or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for number, (samples, words, spans) in enumerate(joined_files()):
            path = folder / f"joined-{number}.wav"
            write_wav(path, samples, RATE)
            found = model.align(path, " ".join(words))
            found.save(path.with_suffix(".srt"))
            errors["align"] += _errors([(w.start, w.end) for w in found.items[0].words], spans)
            cues = read_srt(path.with_suffix(".srt").read_text())
            errors["srt"] += [abs(cues[0].start / 1000 - spans[0][0]), abs(cues[-1].end / 1000 - spans[-1][1])]
            heard += len(words)
            for word in model.predict(path).items[0].words:
                near = [i for i, (start, end) in enumerate(spans) if word.start < end and word.end > start]
                if len(near) == 1 and words[near[0]] == word.text:
                    told += 1
                    errors["predict"] += _errors([(word.start, word.end)], [spans[near[0]]])
    for name, values in errors.items():
        if values:
            median, within = 1000 * np.median(values), 100 * np.mean(np.array(values) <= 0.1)
            say(f"{name}: median {median:.0f} ms, {within:.0f} % within 100 ms, {len(values)} edges")
    say(f"predict: {told} of {heard} words recognised at their place")


def say(text: str) -> None:
    """One line of the answer."""
    sys.stdout.write(f"{text}\n")


def joined_files() -> list[tuple[np.ndarray, list[str], list[tuple[float, float]]]]:
    """Samples, words, and where each word lies in seconds, of every file."""
    single = [
        one for one in corpus_of("phrases").utterances if " " not in (one.text or " ") and len(one.text or "") > 1
    ]
    rng = np.random.default_rng(2021)
    files = []
    for _ in range(FILES):
        parts, words, spans, at = [], [], [], 0
        for index in rng.choice(len(single), WORDS, replace=False):
            gap = np.zeros(int(rng.uniform(0.2, 0.8) * RATE), np.float32)
            sound = read_audio(single[index].source, rate=RATE).samples
            loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
            at += len(gap)
            spans.append(((at + loud[0]) / RATE, (at + loud[-1]) / RATE))
            words.append(single[index].text)
            parts += [gap, sound]
            at += len(sound)
        files.append((np.concatenate([*parts, np.zeros(RATE // 2, np.float32)]), words, spans))
    return files


def _errors(found: list[tuple[float, float]], true: list[tuple[float, float]]) -> list[float]:
    return [abs(a - b) for pair, other in zip(found, true, strict=True) for a, b in zip(pair, other, strict=True)]


if __name__ == "__main__":
    main()
