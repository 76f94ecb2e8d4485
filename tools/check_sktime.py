"""Run sktime's own checks on our estimators and print each with its result: `python tools/check_sktime.py [NAME ...]`.

Exit code 0 where every check passed, 1 where one did not.
"""

from __future__ import annotations

import sys
import time
import warnings

from sktime.utils.estimator_checks import check_estimator

from pipelines.classify import sktime as classifiers
from pipelines.forecast import sktime as forecasters

ESTIMATORS = {name: getattr(module, name) for module in (forecasters, classifiers) for name in module.__all__}


def main(names: list[str]) -> int:
    """Check the named estimators, or all."""
    unknown = [name for name in names if name not in ESTIMATORS]
    if unknown:
        sys.stderr.write(f"no such estimator: {', '.join(unknown)}; there are {', '.join(ESTIMATORS)}\n")
        return 2
    failed = 0
    for name in names or ESTIMATORS:
        start = time.perf_counter()
        with warnings.catch_warnings():
            # The checks' series are short and full of gaps on purpose: each would be warned of.
            warnings.simplefilter("ignore")
            results = check_estimator(ESTIMATORS[name], raise_exceptions=False, verbose=False)
        for check, result in results.items():
            sys.stdout.write(f"{check} {result if result == 'PASSED' else f'FAILED: {result!r}'}\n")
        passed = sum(1 for result in results.values() if result == "PASSED")
        failed += len(results) - passed
        seconds = time.perf_counter() - start
        sys.stdout.write(f"{name}: {passed} of {len(results)} checks PASSED in {seconds:.0f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
