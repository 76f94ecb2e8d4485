"""Time and memory of transcribing: seconds a second of sound on one thread, and peak memory over 1, 10, 100 minutes.

    python tests/performance/bench_transcribe.py [--checkpoint FOLDER] [--method auto] [--minutes 1 10 100] [--json]

The sound is the embedded phrases one after another with pauses of 0.4 to 1.2 s, over and over, as a WAV file in a
temporary folder. Each length is transcribed by a fresh process, which first opens the model and hears the first three
seconds, so that loading and compiling are not counted. The real-time factor is seconds of work for a second of sound,
by the clock and by the processor; where other programs run, the second is still to be trusted. Memory is the highest
resident size of that process, and what of it was there before the recording was opened: it may not grow with the
length. Without a checkpoint the model that ships is measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator

_STATUS = pathlib.Path("/proc/self/status")
PAUSES = (0.4, 1.2)
GROWTH = 1.2  # the longest recording's peak may be so many times the shortest's


def phrases(rate: int) -> Iterator[bytes]:
    """Embedded phrases with pauses behind them as 16-bit samples, in an order drawn once, without end."""
    import numpy as np

    from pipelines.data.formats.audio import read_audio
    from pipelines.transcribe.reading import corpus_of

    draw = np.random.default_rng(26)
    found = corpus_of("phrases").utterances
    order = [found[i] for i in draw.permutation(len(found))]
    for utterance in itertools.cycle(order):
        sound = read_audio(utterance.source, rate=rate).samples
        pause = draw.normal(0, 3e-4, round(draw.uniform(*PAUSES) * rate)).astype(np.float32)
        joined = np.concatenate([sound, pause])
        yield (joined.clip(-1, 1) * 32767).round().astype("<i2").tobytes()


def write_sound(path: pathlib.Path, minutes: float, rate: int) -> None:
    """A mono WAV file of exactly so many minutes."""
    missing = round(60 * minutes * rate) * 2
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        for part in phrases(rate):
            file.writeframesraw(part[:missing])
            missing -= len(part)
            if missing <= 0:
                return


def peak_bytes() -> float:
    """The highest resident size of this process so far."""
    # ru_maxrss of a child starts at what its parent held when it was born; the kernel's own mark does not.
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024.0
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def measure(path: pathlib.Path, options: argparse.Namespace) -> dict[str, float]:
    """Transcribe one file in this process."""
    from pipelines import Transcriber

    how = {"decode": {"method": options.method}, "threads": options.threads, "device": "cpu"}
    t = Transcriber.load(options.checkpoint, **how) if options.checkpoint else Transcriber(**how)
    with wave.open(str(path), "rb") as file:
        rate, count = file.getframerate(), file.getnframes()
        start = file.readframes(3 * rate)
    import numpy as np

    t.predict((np.frombuffer(start, "<i2").astype(np.float32) / 32768, rate))
    before, clock, work = peak_bytes(), time.perf_counter(), time.process_time()
    found = t.predict(path)
    clock, work = time.perf_counter() - clock, time.process_time() - work
    return {
        "sound_s": count / rate,
        "clock_s": clock,
        "processor_s": work,
        "before_MB": before / 1e6,
        "peak_MB": peak_bytes() / 1e6,
        "words": len(found.text.split()),
    }


def in_child(path: pathlib.Path, options: argparse.Namespace) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--file", str(path), "--method", options.method]
    command += ["--threads", str(options.threads)]
    if options.checkpoint:
        command += ["--checkpoint", options.checkpoint]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"the child ended with {answer.returncode}: {answer.stderr.strip()[-400:]}")
    return json.loads(answer.stdout.splitlines()[-1])


def _line(minutes: float, took: dict[str, float]) -> str:
    by_clock, by_work = (took[name] / took["sound_s"] for name in ("clock_s", "processor_s"))
    return (
        f"{minutes:6g} min: real-time factor {by_clock:.3f} by the clock, {by_work:.3f} by the processor; peak "
        f"{took['peak_MB']:.0f} MB, {took['before_MB']:.0f} MB before; {took['words']:.0f} words"
    )


def main() -> int:
    """Run all lengths and print them; 1 where memory grew with the length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="a folder that Transcriber.save wrote; default: the model that ships")
    parser.add_argument("--method", choices=("auto", "greedy", "ctc", "beam"), default="auto")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 10.0, 100.0])
    parser.add_argument("--rate", type=int, default=8000, help="Hz of the WAV files")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--file", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file:
        sys.stdout.write(json.dumps(measure(options.file, options)) + "\n")
        return 0
    found: dict[float, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for minutes in sorted(options.minutes):
            path = pathlib.Path(folder) / f"{minutes:g}.wav"
            write_sound(path, minutes, options.rate)
            found[minutes] = in_child(path, options)
            path.unlink()
            if not options.json:
                sys.stdout.write(_line(minutes, found[minutes]) + "\n")
                sys.stdout.flush()
    growth = found[max(found)]["peak_MB"] / found[min(found)]["peak_MB"]
    if options.json:
        sys.stdout.write(
            json.dumps({"lengths": {f"{m:g}": took for m, took in found.items()}, "growth": growth}) + "\n"
        )
    elif len(found) > 1:
        sys.stdout.write(f"peak of the longest over that of the shortest: {growth:.2f} (goal at most {GROWTH})\n")
    return int(growth > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
