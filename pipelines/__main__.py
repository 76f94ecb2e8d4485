"""Entry point of the ``pipelines`` command."""

from __future__ import annotations

import os
import sys

from pipelines.cli import main as run


def main() -> None:
    """Run the command line and leave with its exit code.

    torch's OpenMP threads spin for about 5 ms after every parallel operation and hold a core that the compiled loops
    want; a shorter wait (about 0.2 ms) costs torch nothing measurable. It must be said before torch is imported, and
    only here: the environment of a program that imports the library is not ours to change.
    """
    if not os.environ.get("OMP_WAIT_POLICY"):
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
