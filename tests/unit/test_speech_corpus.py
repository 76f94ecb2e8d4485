"""Lists and folders of speech: every layout by its content, bad lines kept with their place, nothing lost."""

from __future__ import annotations

import json
import os
import pathlib
import random

import pytest

from pipelines.data.datasets.speech_corpus import Corpus, Utterance, read_corpus
from pipelines.data.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("PIPELINES_DATA", ROOT.parent / "shared" / "data"))


def touch(folder: pathlib.Path, *names: str) -> None:
    """Files by name: no sound is opened here, so that empty ones do."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def write(folder: pathlib.Path, name: str, *lines: str) -> pathlib.Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def texts(corpus: Corpus) -> dict[str, str | None]:
    return {one.id: one.text for one in corpus.utterances}


def parts(corpus: Corpus) -> dict[str, str]:
    return {one.id: one.part for one in corpus.utterances}


def test_json_lines_with_every_field(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "a.wav", "b/c.flac")
    lines = [
        {"audio_filepath": "a.wav", "text": "one", "duration": 1.5, "offset": 2.0, "speaker": "ann", "id": "x"},
        {"audio_filepath": "b/c.flac", "text": "", "split": "dev"},
        {"audio_filepath": str(tmp_path / "a.wav"), "text": "été", "offset": 7},
    ]
    path = write(tmp_path, "list.jsonl", *(json.dumps(line) for line in lines))
    corpus = read_corpus(path)
    first, second, third = corpus.utterances
    assert first == Utterance("x", tmp_path / "a.wav", "one", "ann", 2.0, 1.5, "", "list.jsonl:1")
    assert (second.id, second.text, second.part, second.source) == ("b/c", "", "valid", tmp_path / "b/c.flac")
    assert (third.start, third.seconds, third.text) == (7.0, None, "été")
    assert "1 of 3 utterances has an empty transcript" in corpus.notes
    assert corpus.notes[0] == "read as JSON lines"
    assert not corpus.failures


def test_bad_lines_are_kept_with_their_place_and_the_rest_is_read(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    lines = [
        '{"audio": "a.wav", "text": "one"}',
        '{"audio": "nowhere.wav", "text": "two"}',
        "",
        '{"audio": "b.wav", "text": ',
        "[1]",
        '{"text": "three"}',
        '{"audio": "b.wav"}',
        '{"audio": "b.wav", "text": 5}',
        '{"audio": "b.wav", "text": "x", "duration": "long"}',
        '{"audio": "b.wav", "text": "x", "duration": 0}',
        '{"audio": "b.wav", "text": "x", "offset": -1}',
        '{"audio": "b.wav", "text": "x", "offset": true}',
        '{"audio": "b\\u0000.wav", "text": "x"}',
        '{"audio": "b.wav", "text": "x", "duration": NaN}',
        '{"audio": "b.wav", "text": "last"}',
    ]
    corpus = read_corpus(write(tmp_path, "list.jsonl", *lines))
    assert texts(corpus) == {"a": "one", "b": "last"}
    problems = {
        2: "no file nowhere.wav",
        4: "no JSON",
        5: "no JSON object",
        6: "no recording is named",
        7: "no text",
        8: "no text but 5",
        9: "no number",
        10: "not > 0",
        11: "start",
        12: "no number",
        13: "no file",
        14: "no number",
    }
    assert set(corpus.failures) == {f"list.jsonl:{number}" for number in problems}
    for number, words in problems.items():
        assert words in corpus.failures[f"list.jsonl:{number}"]
    assert any(note.startswith("12 entries cannot be used, the first at list.jsonl:2") for note in corpus.notes)


def test_lines_that_are_no_utf8_are_named(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / "list.csv").write_bytes(
        "audio,text\na.wav,caf\xe9\nb.wav,café\n".encode("latin-1")[:-3] + "é\n".encode()
    )
    corpus = read_corpus(tmp_path / "list.csv")
    assert corpus.failures == {"list.csv:2": "the line is no UTF-8"}
    assert list(texts(corpus)) == ["b"]


def test_a_list_without_a_good_line_is_refused(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, "list.jsonl", '{"audio": "x.wav", "text": "a"}', '{"audio": "y.wav", "text": "b"}')
    with pytest.raises(InputError, match=r"2 problems, the first at list.jsonl:1: there is no file x.wav"):
        read_corpus(path)


def test_an_id_twice_names_both_lines(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    path = write(tmp_path, "l.csv", "audio,text,id", "a.wav,x,one", "b.wav,y,two", "b.wav,z,one")
    with pytest.raises(InputError, match=r"'one'.*l.csv:2 and l.csv:4"):
        read_corpus(path)
    with pytest.raises(InputError, match=r"l.csv:2 and l.csv:3"):
        read_corpus(write(tmp_path, "l.csv", "audio,text", "a.wav,x", "a.wav,y"))


def test_tables_by_comma_tab_and_bar(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    comma = write(tmp_path, "c.csv", "\ufeffFile,Transcript,Duration", 'a.wav,"one, ""two""\nthree",1.5', "b.wav,,2")
    corpus = read_corpus(comma)
    assert texts(corpus) == {"a": 'one, "two"\nthree', "b": ""}
    assert [one.where for one in corpus.utterances] == ["c.csv:2", "c.csv:4"]
    tab = write(tmp_path, "t.tsv", "path\tsentence\tother", 'a.wav\t"quoted" word\tx', "b.wav\ttoo few")
    corpus = read_corpus(tab)
    assert texts(corpus) == {"a": '"quoted" word'}
    assert corpus.failures == {"t.tsv:3": "2 cells where the header has 3"}
    only = write(tmp_path, "only.csv", "audio", "a.wav", "b.wav")
    assert texts(read_corpus(only)) == {"a": None, "b": None}


def test_relative_paths_by_root(tmp_path: pathlib.Path) -> None:
    touch(tmp_path / "sounds", "a.wav")
    path = write(tmp_path / "lists", "l.csv", "audio,text", "a.wav,one")
    with pytest.raises(InputError, match=r"no file a.wav"):
        read_corpus(path)
    assert read_corpus(path, root=tmp_path / "sounds").utterances[0].source == tmp_path / "sounds" / "a.wav"


def test_ljspeech(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "wavs/LJ001-0001.wav", "wavs/LJ001-0002.wav")
    lines = ("LJ001-0001|Dr. X paid 5|Doctor X paid five", 'LJ001-0002|"So|"So', "LJ001-0003|gone|gone")
    write(tmp_path, "metadata.csv", *lines)
    corpus = read_corpus(tmp_path)
    assert texts(corpus) == {"LJ001-0001": "Doctor X paid five", "LJ001-0002": '"So'}
    assert list(corpus.failures) == ["metadata.csv:3"]
    assert corpus.notes[0].startswith("read as LJSpeech")


def test_common_voice(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "clips/1.mp3", "clips/2.mp3", "clips/3.mp3")
    header = "client_id\tpath\tsentence\tup_votes"
    write(tmp_path, "train.tsv", header, "s1\t1.mp3\tHello.\t2")
    write(tmp_path, "dev.tsv", header, "s2\t2.mp3\tBye.\t2")
    write(tmp_path, "test.tsv", header, "s3\t3.mp3\tYes.\t2")
    write(tmp_path, "validated.tsv", header, "s1\t1.mp3\tHello.\t2", "s2\t2.mp3\tBye.\t2", "s3\t3.mp3\tYes.\t2")
    corpus = read_corpus(tmp_path)
    assert parts(corpus) == {"1": "train", "2": "valid", "3": "test"}
    assert corpus.speakers == ("s1", "s2", "s3")
    assert any("validated.tsv" in note for note in corpus.notes)
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").unlink()
    write(tmp_path, "invalidated.tsv", header, "s1\t1.mp3\tHello.\t0")
    assert len(read_corpus(tmp_path)) == 3


def test_spgispeech(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "spgispeech/train/aa/1.wav", "spgispeech/val/bb/1.wav", "spgispeech/val/bb/2.wav")
    header = "wav_filename|wav_filesize|transcript"
    write(tmp_path, "train.csv", header, 'aa/1.wav|99|We said "5%", didn\'t we?')
    write(tmp_path, "val.csv", header, "bb/1.wav|99|Yes.", "bb/2.wav|99|No.", "bb/3.wav|99|Gone.")
    corpus = read_corpus(tmp_path)
    assert texts(corpus)["aa/1"] == 'We said "5%", didn\'t we?'
    assert parts(corpus) == {"aa/1": "train", "bb/1": "valid", "bb/2": "valid"}
    assert corpus.speakers == ("aa", "bb")
    assert list(corpus.failures) == ["val.csv:4"]
    assert corpus.notes[0].startswith("read as SPGISpeech")


def test_librispeech(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "LibriSpeech"
    touch(root, "train-clean-100/19/198/19-198-0000.flac", "dev-other/7/1/7-1-0000.flac", "dev-other/7/1/7-1-0009.flac")
    write(root, "train-clean-100/19/198/19-198.trans.txt", "19-198-0000 NORTHANGER ABBEY", "19-198-0001 GONE")
    write(root, "dev-other/7/1/7-1.trans.txt", "7-1-0000 IT'S", "")
    corpus = read_corpus(root)
    assert texts(corpus) == {"19-198-0000": "NORTHANGER ABBEY", "7-1-0000": "IT'S", "7-1-0009": None}
    assert parts(corpus) == {"19-198-0000": "train", "7-1-0000": "valid", "7-1-0009": "valid"}
    assert corpus.speakers == ("19", "7")
    assert list(corpus.failures) == ["train-clean-100/19/198/19-198.trans.txt:2"]
    below = read_corpus(root / "dev-other" / "7")
    assert {one.part for one in below.utterances} == {"valid"}, "the part is known from the folders above"


def giga(segments: list[dict[str, object]]) -> str:
    audio = {"aid": "POD1", "path": "audio/POD1.opus", "speaker": "N/A", "segments": segments}
    return json.dumps({"audios": [audio, {"aid": "YOU2", "path": "audio/YOU2.opus", "segments": [{}, {}]}, 3]})


def test_gigaspeech(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "audio/POD1.opus")

    def segment(number: int, text: str, *subsets: str, **more: object) -> dict[str, object]:
        base = {"sid": f"S{number}", "begin_time": 1.1 * number, "end_time": 1.1 * number + 0.7, "text_tn": text}
        return {**base, "subsets": [f"{{{name}}}" for name in subsets], **more}

    segments = [
        segment(0, "HELLO <COMMA> WORLD <PERIOD>", "XS", "S", "XL"),
        segment(1, "<MUSIC>", "XL"),
        segment(2, "<SIL>", "XL"),
        segment(3, "BIG ONE", "XL", speaker="ann"),
        segment(4, "WHAT <QUESTIONMARK>", "DEV"),
        segment(5, "STOP <EXCLAMATIONPOINT>", "TEST"),
        segment(6, "BACKWARDS", "XL", end_time=0.1),
        segment(7, "NO NUMBER", "XL", begin_time="7"),
    ]
    path = write(tmp_path, "GigaSpeech.json", giga(segments))
    corpus = read_corpus(tmp_path)
    assert texts(corpus) == {"S0": "HELLO WORLD", "S3": "BIG ONE", "S4": "WHAT", "S5": "STOP"}
    assert parts(corpus) == {"S0": "train", "S3": "train", "S4": "valid", "S5": "test"}
    assert (corpus.utterances[1].start, corpus.utterances[1].seconds) == (pytest.approx(3.3), 0.7)
    assert corpus.speakers == ("POD1", "ann")
    assert "2 segments without speech are left out: <MUSIC> 1, <SIL> 1" in corpus.notes
    assert "4 tags for punctuation are left out of the texts" in corpus.notes
    assert {place.split(":")[1] for place in corpus.failures} == {
        "audio 0, segment 6",
        "audio 0, segment 7",
        "audio 1",
        "audio 2",
    }
    small = read_corpus(path, subset="s")
    assert list(texts(small)) == ["S0", "S4", "S5"]
    assert any("outside the subset S" in note for note in small.notes)
    with pytest.raises(InputError, match="XS, S, M, L, XL"):
        read_corpus(path, subset="huge")


def test_fsdd(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "recordings/7_theo_4.wav", "recordings/7_theo_5.wav", "recordings/0_ann_49.wav")
    for folder in (tmp_path, tmp_path / "recordings"):
        corpus = read_corpus(folder)
        assert texts(corpus) == {"0_ann_49": "zero", "7_theo_4": "seven", "7_theo_5": "seven"}
        assert parts(corpus) == {"0_ann_49": "train", "7_theo_4": "test", "7_theo_5": "train"}
        assert corpus.speakers == ("ann", "theo")


def test_speech_commands(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "yes/ab_nohash_0.wav", "yes/cd_nohash_0.wav", "no/ab_nohash_1.wav", "_background_noise_/pink.wav")
    write(tmp_path, "validation_list.txt", "yes/cd_nohash_0.wav")
    write(tmp_path, "testing_list.txt", "no/ab_nohash_1.wav", "no/gone_nohash_0.wav")
    corpus = read_corpus(tmp_path)
    assert parts(corpus) == {"no/ab_nohash_1": "test", "yes/ab_nohash_0": "train", "yes/cd_nohash_0": "valid"}
    assert {one.text for one in corpus.utterances} == {"yes", "no"}
    assert corpus.speakers == ("ab", "cd")
    assert corpus.failures == {"testing_list.txt:2": "there is no file no/gone_nohash_0.wav"}
    assert any("1 recordings of _background_noise_" in note for note in corpus.notes)


def test_plain_recordings_and_what_is_beside_them(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "a.wav", "a.mp3", "b.wav", "test/c.OGG", ".hidden/d.wav", "e.wav", "f.wav", "photo.png")
    write(tmp_path, "b.txt", "hello", "  world")
    write(tmp_path, "test/c.lab", "cee")
    (tmp_path / "e.txt").write_bytes(b"\xe9\xe9")
    write(tmp_path, "f.txt", "one")
    write(tmp_path, "f.lab", "two")
    write(tmp_path, "strange.csv", "x,y", "1,2")
    corpus = read_corpus(tmp_path)
    assert texts(corpus) == {"a.mp3": None, "a.wav": None, "b": "hello world", "test/c": "cee"}
    assert parts(corpus)["test/c"] == "test"
    assert set(corpus.failures) == {"e.wav", "f.wav"}
    assert "2 of 4 utterances have no transcript" in corpus.notes
    assert any("strange.csv" in note for note in corpus.notes)
    assert [one.id for one in corpus.with_text().utterances] == ["b", "test/c"]
    assert texts(read_corpus(tmp_path / "b.wav")) == {"b": "hello world"}


def test_what_cannot_be_told_apart_is_refused(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "a.wav")
    write(tmp_path, "one.csv", "audio,text", "a.wav,x")
    write(tmp_path, "two.jsonl", '{"audio": "a.wav", "text": "x"}')
    with pytest.raises(InputError, match=r"one.csv.*two.jsonl"):
        read_corpus(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"LibriSpeech.*audio_filepath"):
        read_corpus(tmp_path / "empty")


@pytest.mark.parametrize("content", [b"", b"hello\nworld\n", b"\x00\x01\x02" * 99, b"[]", b"a;b\n1;2\n", b"{}"])
def test_files_that_are_no_lists_are_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"list\.csv"):
        read_corpus(tmp_path / "list.csv")


def test_sequences_are_joined_and_clashing_ids_get_names(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "one/a.wav", "two/a.wav", "two/b.wav", "c.wav")
    corpus = read_corpus(
        [
            tmp_path / "one",
            str(tmp_path / "two"),
            (tmp_path / "c.wav", "sea"),
            {"audio": str(tmp_path / "c.wav"), "text": "see", "id": "again"},
            {"audio": "nowhere.wav", "text": "x"},
            Utterance("own", tmp_path / "c.wav", "own"),
        ]
    )
    ids = [one.id for one in corpus.utterances]
    assert ids == [str(tmp_path / "c"), "again", "own", "2:one/a", "3:two/a", "b"]
    assert corpus.failures == {"entry 4": "there is no file nowhere.wav"}
    assert any("1 ids occur in several sources" in note for note in corpus.notes)
    assert read_corpus(corpus) is corpus
    for wrong in ([], [3], None):
        with pytest.raises(InputError, match="data"):
            read_corpus(wrong)  # type: ignore[arg-type]


def test_missing_files_and_misplaced_subsets(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_corpus(tmp_path / "nowhere")
    touch(tmp_path, "a.wav")
    with pytest.raises(InputError, match="only GigaSpeech"):
        read_corpus(tmp_path, subset="S")


def test_unknown_parts_are_counted(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    corpus = read_corpus(write(tmp_path, "l.csv", "audio,text,split", "a.wav,x,fold3", "b.wav,y,train"))
    assert parts(corpus) == {"a": "", "b": "train"}
    assert "1 utterances of the part 'fold3' count for none" in corpus.notes
    assert "parts by the corpus: train 1, none 1" in corpus.notes
    assert [len(corpus.part(name)) for name in ("train", "", "test")] == [1, 1, 0]


@pytest.mark.parametrize("name", ["l.jsonl", "l.csv", "l.tsv", "GigaSpeech.json", "19-198.trans.txt"])
def test_damaged_lists_give_a_corpus_or_one_message(tmp_path: pathlib.Path, name: str) -> None:
    """100 cut or flipped files of each kind: nothing but an InputError may come out."""
    touch(tmp_path, "a.wav", "b.wav", "audio/POD1.opus", "19-198-0000.flac")
    segment = {"sid": "S", "begin_time": 1, "end_time": 2, "text_tn": "A <COMMA> B", "subsets": ["{XL}"]}
    whole = {
        "l.jsonl": '{"audio": "a.wav", "text": "one", "duration": 1}\n{"audio": "b.wav", "text": "two", "offset": 1}\n',
        "l.csv": 'audio,text,duration\na.wav,"one, two",1.5\nb.wav,three,\n',
        "l.tsv": "path\tsentence\na.wav\tone\nb.wav\ttwo\n",
        "GigaSpeech.json": giga([segment]),
        "19-198.trans.txt": "19-198-0000 ONE TWO\n19-198-0001 GONE\n",
    }[name].encode()
    generator = random.Random(0)
    read = 0
    for _ in range(100):
        damaged = bytearray(whole[: generator.randrange(len(whole))] if generator.random() < 0.3 else whole)
        for _ in range(generator.randrange(6) if damaged else 0):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            read += bool(len(read_corpus(tmp_path / name if name != "19-198.trans.txt" else tmp_path)))
        except InputError as error:
            assert str(error).endswith(".")  # noqa: PT017
    assert read > 10


def test_real_manifest_of_spoken_stamps(tmp_path: pathlib.Path) -> None:
    """Every row is accounted for: files are stood in for by empty ones."""
    source = DATA / "embeddable" / "asr" / "tuxpaint_manifest.tsv"
    if not source.is_file():
        pytest.skip("set PIPELINES_DATA to the folder with the data")
    rows = [line for line in source.read_text("utf-8").splitlines() if line.startswith("ca\t")]
    write(tmp_path, "stamps.tsv", "language\tpath\tduration\ttext", *rows)
    touch(tmp_path, *(row.split("\t")[1] for row in rows[1:]))
    corpus = read_corpus(tmp_path / "stamps.tsv")
    assert len(corpus) == len(rows) - 1 == 916
    assert list(corpus.failures) == ["stamps.tsv:2"]
    assert [one.text for one in corpus.utterances] == [row.split("\t")[3] for row in rows[1:]]
