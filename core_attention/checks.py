"""The public conformance suite: what a mechanism's flags claim, checked; a new mechanism needs no test of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from core_attention import registry
from core_attention._check_inputs import CheckFailed, Subject
from core_attention._check_list import checks_for
from core_attention.contract import MechanismError


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        check: what was checked, e.g. "no look-ahead".
        passed: whether the mechanism keeps it.
        detail: what was found, or why it failed.
    """

    check: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        return f"{'passed' if self.passed else 'FAILED'}  {self.check}: {self.detail}"


def check_mechanism(name: str, *, raise_: bool = True, **options: Any) -> list[CheckResult]:
    """Hold a mechanism to everything that its flags claim.

    Args:
        name: registry name; mechanisms registered at run time are welcome.
        raise_: raise where a check fails, instead of returning the failures with the rest.
        options: constructor options to check it with.

    Returns:
        One result for each check that applies to the mechanism's kind and flags.

    Raises:
        MechanismError: no such mechanism, or (``raise_``) a failed check; the message lists all that failed.

    Always: output shape, a gradient for every parameter, float64 gradients against differences, batch independence,
    bf16 no worse than plain torch, seeds, state dict, deepcopy and pickle, nothing kept on the module, refusal of wrong
    inputs. By flag: padding invariance, context, no look-ahead, pieces equal the whole, fixed length, export with a
    dynamic batch, memory growth; dropout where there is such an option. Random branches run seeded, in training and in
    evaluation mode. The caller's random state is left as it was.

    Example:
        >>> from core_attention import check_mechanism
        >>> all(result.passed for result in check_mechanism("auto_correlation"))
        True
    """
    subject = Subject(registry.get(name).spec, options)
    results = []
    with torch.random.fork_rng(devices=[]):
        for label, check in checks_for(subject):
            torch.manual_seed(0)
            results.append(_run(label, check, subject))
    failed = [result for result in results if not result.passed]
    if failed and raise_:
        lines = "\n".join(f"  {result}" for result in failed)
        raise MechanismError(f"{name} breaks its contract in {len(failed)} of {len(results)} checks:\n{lines}")
    return results


def _run(label: str, check: Any, subject: Subject) -> CheckResult:
    try:
        return CheckResult(label, True, check(subject))
    except CheckFailed as failure:
        return CheckResult(label, False, str(failure))
    # A third party's code may fail in any way; the report must go on to the next check.
    except Exception as error:
        return CheckResult(label, False, f"{type(error).__name__}: {error}")
