"""Reading labelled series: real sets first, then what each format promises and what each reader refuses."""

from __future__ import annotations

import gzip
import lzma
import pathlib
import warnings

import numpy as np
import pytest

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled import LabelledSeries, read_labelled, sktime_sets

HEAD = (
    "@problemName t\n@timeStamps false\n@missing {m}\n@univariate {u}\n@equalLength {e}\n@classLabel true a b\n@data\n"
)


def _save(folder: pathlib.Path, name: str, content: str | bytes) -> pathlib.Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _ts(folder: pathlib.Path, body: str, *, m: str = "true", u: str = "false", e: str = "false") -> LabelledSeries:
    return read_labelled(_save(folder, "t.ts", HEAD.format(m=m, u=u, e=e) + body))


def _said(data: LabelledSeries, words: str) -> bool:
    return any(words in note for note in data.notes)


def _as_lists(data: LabelledSeries) -> list[list[list[float]]]:
    return [one.tolist() for one in data.series]


# ---------------------------------------------------------------- real sets


@pytest.mark.parametrize(
    ("name", "train", "test", "width", "lengths", "classes"),
    [("BasicMotions", 40, 40, 6, (100, 100), 4), ("JapaneseVowels", 270, 370, 12, (7, 29), 9)],
)
def test_sets_of_sktime(name: str, train: int, test: int, width: int, lengths: tuple[int, int], classes: int) -> None:
    from sktime.datasets import load_basic_motions, load_japanese_vowels

    data = read_labelled(name)
    assert data.split is not None
    assert (data.split.count("train"), data.split.count("test"), len(data.variables)) == (train, test, width)
    assert (data.lengths.min(), data.lengths.max(), len(data.classes)) == (*lengths, classes)
    assert (data.ids[0], data.ids[train], data.notes, data.missing) == ("train-0", "test-0", (), 0)
    load = load_basic_motions if name == "BasicMotions" else load_japanese_vowels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames, y = load(split="test", return_type="df-list")
    assert data.labels is not None
    assert [label.lower() for label in data.labels[train:]] == list(y)  # sktime writes labels small
    for ours, theirs in zip(data.series[train:], frames, strict=True):
        np.testing.assert_array_equal(ours, theirs.to_numpy().T.astype(np.float32))


def test_every_set_of_sktime_is_read() -> None:
    sets = sktime_sets()
    assert {"BasicMotions", "JapaneseVowels", "ArrowHead"} <= set(sets)
    assert "Tecator" not in sets  # regression
    for name in ("UnitTest", "GunPoint"):
        data = read_labelled(name)
        assert len(set(data.ids)) == len(data) > 40


def test_natops(benchmark: pathlib.Path) -> None:
    folder = benchmark / "tsc"
    if not (folder / "NATOPS_TRAIN.ts.xz").is_file():
        pytest.skip("NATOPS is not in the benchmark folder")
    data = read_labelled(folder / "NATOPS_TEST.ts.xz")
    assert (len(data), data.series[0].shape, len(data.classes)) == (360, (24, 51), 6)
    assert data.split is not None
    assert data.split.count("train") == 180
    assert _said(data, "NATOPS_TEST.ts.xz was given: read together with its partner NATOPS_TRAIN.ts.xz")
    assert read_labelled(folder / "NATOPS").digest() == data.digest()
    alone = read_labelled(folder / "NATOPS_TEST.ts.xz", pair=False)
    assert (len(alone), alone.split, alone.ids[0]) == (180, None, "0")


def test_watch(benchmark: pathlib.Path) -> None:
    path = benchmark.parent / "embeddable" / "tsc" / "seglearn_watch.npz"
    if not path.is_file():
        pytest.skip("seglearn_watch.npz is not there")
    data = read_labelled(path)
    assert (len(data), data.variables) == (140, ("ax", "ay", "az", "wx", "wy", "wz"))
    assert (data.lengths.min(), data.lengths.max()) == (947, 2618)
    assert data.classes == ("ABD", "ER", "FEL", "IR", "PEN", "ROW", "TRAP")
    assert data.groups is not None
    assert len(set(data.groups)) == 10
    assert read_labelled(path, group="side").groups != data.groups
    sample = read_labelled(pathlib.Path(__file__).parents[2] / "data/samples/classification/watch.npz")
    assert (sample.labels, sample.groups, sample.variables) == (data.labels, data.groups, data.variables)
    first = data.series[0].astype(np.float64)
    means = first[:, : first.shape[1] // 4 * 4].reshape(6, -1, 4).mean(2)
    np.testing.assert_array_equal(sample.series[0], means.astype(np.float32))


# ---------------------------------------------------------------- .ts


def test_ts_unequal_and_missing(tmp_path: pathlib.Path) -> None:
    data = _ts(tmp_path, "# a comment\n1,2,?:4,NaN,6:a\n\n7,8:9,1e1:b\n")
    np.testing.assert_array_equal(data.series[0], [[1, 2, np.nan], [4, np.nan, 6]])
    assert (data.labels, data.series[1].tolist()) == (("a", "b"), [[7, 8], [9, 10]])
    assert data.notes == ("2 values in 1 series were not measured",)


def test_ts_univariate_equal_length_upper_case_and_windows_ends(tmp_path: pathlib.Path) -> None:
    text = HEAD.format(m="FALSE", u="TRUE", e="True").replace("@data", "@SERIESLENGTH 2\n@DATA") + "1,2:a\n3,4:b"
    data = read_labelled(_save(tmp_path, "t.ts", text.replace("\n", "\r\n")))
    assert (_as_lists(data), data.labels) == ([[[1, 2]], [[3, 4]]], ("a", "b"))


def test_ts_without_labels_and_unknown_header(tmp_path: pathlib.Path) -> None:
    data = read_labelled(_save(tmp_path, "t.ts", "@colour red\n@dimension 2\n@classLabel false\n@data\n1,2:3,4\n"))
    assert (data.labels, _as_lists(data)) == (None, [[[1, 2], [3, 4]]])
    assert _said(data, "no class labels")
    assert _said(data, "header line @colour not used")


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_ts_packed_and_latin(tmp_path: pathlib.Path, pack: object) -> None:
    text = ("# Pierre-François\n" + HEAD.format(m="false", u="true", e="true") + "1,2:a\n").encode("latin-1")
    ending = ".gz" if pack is gzip.compress else ".xz"
    data = read_labelled(_save(tmp_path, f"t.ts{ending}", pack(text)))  # type: ignore[operator]
    assert (_as_lists(data), data.notes) == ([[[1, 2]]], ("not UTF-8: read as Latin-1",))
    damaged = _save(tmp_path, f"d.ts{ending}", pack(text)[:-9])  # type: ignore[operator]
    with pytest.raises(InputError, match=r"damaged|cut"):
        read_labelled(damaged)


@pytest.mark.parametrize(
    ("flags", "body", "words"),
    [
        (
            {},
            "1,2:3:a\n",
            "line 8: the variables of one example have different lengths. Found: variable 2 has 1 values",
        ),
        ({}, "1,2:3,4:a\n1,2:3,4:5,6:a\n", "line 9: another number of dimensions.*Found: 3 dimensions.*example, 2"),
        ({"e": "true"}, "1,2:3,4:a\n1:2:b\n", "line 9: another length.*Found: 1 time steps.*Expected: 2"),
        ({"m": "false"}, "1,2:3,?:a\n", "line 8: a missing value.*dimension 2, time step 2.*@missing false"),
        ({"u": "true"}, "1,2:3,4:a\n", "line 8: another number of dimensions.*Found: 2.*@univariate true: 1"),
        ({}, "1,2:a\n", "line 8: only one dimension.*@univariate false"),
        ({}, "1,2:3,4:A\n", "line 8: the label is not in the list.*Found: 'A'.*a, b.*did you mean 'a'"),
        ({}, "1,2:3,4\n", "line 8: the label is not in the list.*'3,4'"),
        ({"u": "true"}, "1,2\n", "line 8: no class label at the end"),
        ({}, "1,2:3,x:a\n", "line 8: value 4 of 4 is no number. Found: 'x'"),
        ({}, "1,2:3,1_0:a\n", "line 8: value 4 of 4 is no number. Found: '1_0'"),
        ({}, "1,2:3,inf:a\n", "line 8: value 4 of 4 is no number. Found: 'inf'"),
        ({}, "1,2:3,1e300:a\n", "line 8: value 4 of 4 is no number. Found: '1e300'"),
        ({}, "1,2:3,:a\n", "line 8: value 4 of 4 is no number"),
        ({}, "1,2::a\n", "line 8: a variable without values"),
        ({}, "(0,1),(1,2):(0,3),(1,4):a\n", "line 8: values with time stamps are not read"),
        ({}, "# nothing\n", "no examples after @data"),
    ],
)
def test_ts_body_against_header(tmp_path: pathlib.Path, flags: dict[str, str], body: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        _ts(tmp_path, body, **flags)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("@timeStamps true\n@classLabel true a\n@data\n1:a", "line 1: the file has time stamps"),
        ("@targetLabel true\n@data\n1:2", "line 1: a set for regression"),
        ("@classLabel true\n@data\n1:a", "line 1: no list of classes"),
        ("@missing maybe\n@data\n1", "line 1: @missing needs true or false. Found: maybe"),
        ("@dimensions two\n@data\n1", "line 1: @dimensions needs a whole number. Found: two"),
        ("@univariate true\n@dimensions 3\n@classLabel true a\n@data\n1:a", "the header contradicts itself"),
        ("@missing true\n@missing false\n@data\n1", "line 2: a header line twice"),
        ("@dimensions 2\n@classLabel true a\n@data\n1:2:3:a", "line 4: another number of dimensions.*@dimensions 2"),
        ("@seriesLength 3\n@equalLength true\n@classLabel true a\n@data\n1,2:a", "line 5: .*@seriesLength 3"),
        ("@missing true\n@data\n1", "does not say whether there are labels"),
        ("@classLabel true a\n1,2:a", "line 2: data before @data"),
        ("@classLabel true a\n", "no line @data"),
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        (b"\x00\x01\x02binary", "not a text file.*control character"),
    ],
)
def test_ts_headers_refused(tmp_path: pathlib.Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_labelled(_save(tmp_path, "t.ts", text))


def test_roles_do_not_apply_to_ts(tmp_path: pathlib.Path) -> None:
    path = _save(tmp_path, "t.ts", HEAD.format(m="true", u="true", e="true") + "1:a")
    with pytest.raises(InputError, match=r"has no named columns. Found: group='g'"):
        read_labelled(path, group="g")


# ---------------------------------------------------------------- .arff and .tsv

UNI = "% old\n@RELATION r\n\n@attribute att0 numeric\n@Attribute 'att 1' REAL\n@attribute target {1, 2,'a b'}\n@DATA\n"
MULTI = (
    "@relation r\n@attribute relationalAtt relational\n@attribute t0 numeric\n@attribute t1 numeric\n"
    "@attribute t2 numeric\n@end relationalAtt\n@attribute activity {up,down}\n@data\n"
)


def test_arff_univariate(tmp_path: pathlib.Path) -> None:
    data = read_labelled(_save(tmp_path, "t.arff", UNI + "1,2,1\n% between\n?,'4', 'a b'\n5,?,2\n"))
    np.testing.assert_array_equal(data.series[1], [[np.nan, 4]])
    assert (data.labels, data.lengths.tolist()) == (("1", "a b", "2"), [2, 2, 1])
    assert data.notes[0] == "1 series end before step 2: the steps after their last value left out"


def test_arff_relational(tmp_path: pathlib.Path) -> None:
    data = read_labelled(_save(tmp_path, "t.arff", MULTI + "'1,2,3\\n4,?,6',up\n\"1,2,?\\n4,5,?\" , down\n"))
    np.testing.assert_array_equal(data.series[0], [[1, 2, 3], [4, np.nan, 6]])
    assert (data.series[1].tolist(), data.labels) == ([[1, 2], [4, 5]], ("up", "down"))
    assert data.notes[-1] == "1 values in 1 series were not measured"


def test_arff_and_ts_of_one_set_agree(tmp_path: pathlib.Path) -> None:
    data = read_labelled(sktime_sets()["BasicMotions"], pair=False)
    assert data.labels is not None
    attributes = "".join(f"@attribute t{i} numeric\n" for i in range(100))
    text = (
        f"@relation b\n@attribute r relational\n{attributes}@end r\n@attribute c {{{','.join(data.classes)}}}\n@data\n"
    )
    for one, label in zip(data.series, data.labels, strict=True):
        text += "'" + "\\n".join(",".join(map(repr, row.tolist())) for row in one) + f"',{label}\n"
    assert read_labelled(_save(tmp_path, "b.arff", text)).digest() == data.digest()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (UNI + "1,2,3\n", "line 8: the label is not in the list.*'3'.*1, 2, a b"),
        (UNI + "1,2,?\n", "line 8: the label is not in the list"),
        (UNI + "1,1\n", "line 8: another number of values than attributes. Found: 1 values. Expected: 2"),
        (UNI + "1,x,1\n", "line 8: value 2 of 2 is no number. Found: 'x'"),
        (UNI + "{0 1, 2 1}\n", "line 8: sparse rows"),
        (UNI + "?,?,1\n", "line 8: an example without a single value"),
        (UNI, "no examples after @data"),
        (MULTI + "'1,2,3\\n4,5',up\n", "line 9: another number of values.*Found: 2"),
        (MULTI + "'1,2,3',up\n'1,2,3\\n1,2,3',up\n", "line 10: another number of variables. Found: 2. Expected: 1"),
        (MULTI + "'1,2,3\\n4,5,6\n", "line 9: not an example of a relational attribute"),
        (MULTI + "'1,2,3',up,down\n", "line 9: values after the class"),
        ("@relation r\n@attribute a numeric\n@attribute b numeric\n@data\n1,2\n", "the last attribute is no class"),
        ("@relation r\n@attribute a string\n@data\n1\n", "line 2: an attribute of a kind that is not read"),
        ("@relation r\n@attribute a numeric\n@attribute c {}\n@data\n", "line 3: not a list of classes"),
        ("@relation r\nhello\n", "line 2: not a line of an ARFF header"),
        ("@relation r\n", "no line @data"),
    ],
)
def test_arff_refused(tmp_path: pathlib.Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_labelled(_save(tmp_path, "t.arff", text))


def test_tsv_of_the_archive() -> None:
    path = sktime_sets()["ArrowHead"].with_suffix(".tsv")
    data, other = read_labelled(path), read_labelled(path.with_suffix(".ts"), pair=False)
    assert data.labels == other.labels
    np.testing.assert_allclose(np.stack(data.series), np.stack(other.series), atol=1e-6)


def test_tsv_shorter_series_are_counted(tmp_path: pathlib.Path) -> None:
    data = read_labelled(_save(tmp_path, "t.tsv", "1\t1\tNaN\t3\n-1\t4\tNaN\tNaN\n1\t5\n"))
    assert (data.lengths.tolist(), data.classes) == ([3, 1, 1], ("-1", "1"))
    assert _said(data, "1 series end before the last column")
    assert _said(data, "1 values in 1 series were not measured")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id\tlabel\tx\n1\ta\t2\n", "line 1: the first line holds names.*save a table.*as .csv"),
        ("1,2,3\n", "line 1: not a line of a UCR file.*no tab"),
        ("1\t2\n\t3\n", "line 2: not a line of a UCR file. Found: no label"),
        ("1\t2\n1\tx\t3\n", "line 2: value 1 of 2 is no number"),
        ("1\tNaN\tNaN\n", "line 1: a series without a single value"),
    ],
)
def test_tsv_refused(tmp_path: pathlib.Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_labelled(_save(tmp_path, "t.tsv", text))


# ---------------------------------------------------------------- pairs and names


def _pair(folder: pathlib.Path, name: str = "P", ending: str = ".ts", test: str = "5,6:b\n7,8:c\n") -> pathlib.Path:
    head = "@classLabel true a b c\n@data\n"
    _save(folder, f"{name}_TRAIN{ending}", head + "1,2:a\n3,4:b\n")
    return _save(folder, f"{name}_TEST{ending}", head + test)


def test_pairs_however_they_are_named(tmp_path: pathlib.Path) -> None:
    path = _pair(tmp_path)
    sources = [path, tmp_path / "P_TRAIN.ts", tmp_path / "P", tmp_path / "P.ts", tmp_path, str(tmp_path)]
    read = [read_labelled(source) for source in sources]
    assert len({one.digest() for one in read}) == 1
    assert (read[0].ids, read[0].split) == (
        ("train-0", "train-1", "test-0", "test-1"),
        ("train", "train", "test", "test"),
    )
    assert _said(read[0], "P_TEST.ts was given: read together with its partner P_TRAIN.ts")
    assert not _said(read[4], "was given")
    assert _said(read[2], "1 test series have a label that no training series has: c")
    path.unlink()
    alone = read_labelled(tmp_path / "P_TRAIN.ts")
    assert (alone.split, len(alone)) == (None, 2)


def test_folders_with_several_sets(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "P"
    folder.mkdir()
    _pair(folder)
    _pair(folder, "PDimension1")
    assert _said(read_labelled(folder), "1 other sets in the folder not read")
    folder.rename(tmp_path / "Q")
    with pytest.raises(InputError, match=r"several sets in the folder. Found: P, PDimension1"):
        read_labelled(tmp_path / "Q")
    with pytest.raises(InputError, match="no pair of files NAME_TRAIN and NAME_TEST in the folder"):
        read_labelled(tmp_path)


def test_pairs_that_do_not_go_together(tmp_path: pathlib.Path) -> None:
    path = _pair(tmp_path, test="1,2:3,4:a\n")
    with pytest.raises(InputError, match="the files of the pair have different variables"):
        read_labelled(path)


def test_names() -> None:
    with pytest.raises(InputError, match=r"no such file, folder or set.*did you mean 'BasicMotions'"):
        read_labelled("BasicMotion")
    with pytest.raises(InputError, match="no such file"):
        read_labelled("nowhere/at_all.ts")


def test_files_without_a_known_ending(tmp_path: pathlib.Path) -> None:
    assert len(read_labelled(_save(tmp_path, "a.txt", HEAD.format(m="true", u="true", e="true") + "1:a"))) == 1
    assert len(read_labelled(_save(tmp_path, "b.txt", UNI + "1,2,1\n"))) == 1
    with pytest.raises(InputError, match="what kind of file this is cannot be told"):
        read_labelled(_save(tmp_path, "c.txt", "1 2 3\n"))
    with pytest.raises(InputError, match="not a text file"):
        read_labelled(_save(tmp_path, "d.bin", b"\x89\x00\x01"))
    for ending in (".ts", ".arff", ".tsv", ".npz", ".csv", ".parquet", ".ts.xz"):
        with pytest.raises(InputError):
            read_labelled(_save(tmp_path, f"empty{ending}", b""))
        with pytest.raises(InputError):
            read_labelled(_save(tmp_path, f"noise{ending}", bytes(range(256)) * 4))


def test_text_files_damaged_at_random_end_in_words(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(1)
    files = {
        "t.ts": HEAD.format(m="true", u="false", e="false") + "1,2,?:4,5,6:a\n7,8:9,10:b\n",
        "t.arff": MULTI + "'1,2,3\\n4,?,6',up\n",
        "t.tsv": "1\t2\t3\n2\t4\tNaN\n",
        "t.csv": "id,label,time,x\n1,a,0,2\n1,a,1,3\n2,b,0,4\n",
    }
    for name, text in files.items():
        for _ in range(150):
            hurt = bytearray(text.encode())
            hurt[int(rng.integers(len(hurt)))] = int(rng.integers(256))
            try:
                read_labelled(_save(tmp_path, name, bytes(hurt)))
            except InputError:
                continue
