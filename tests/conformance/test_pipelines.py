"""Every domain's class keeps the contract of pipelines; the suite itself notices one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.checks import CHECKS, check_pipeline
from pipelines.domains import DOMAINS, pipeline_class
from pipelines.forecast.pipeline import Forecaster


@pytest.mark.parametrize("domain", DOMAINS)
def test_contract(domain: str) -> None:
    results = check_pipeline(pipeline_class(domain), raise_=False)
    assert [r for r in results if not r.passed] == []
    assert len(results) == len(CHECKS)


class Forgetful(Forecaster):
    """A forecaster whose loaded weights are not those that were saved.

    Args:
        context: rows.
    """

    def _restore(self, tensors: dict[str, Any], config: dict[str, Any]) -> None:
        super()._restore({name: tensor + 0.1 for name, tensor in tensors.items()}, config)


def test_the_suite_catches_a_pipeline_that_forgets() -> None:
    wrong = {r.name for r in check_pipeline(Forgetful, raise_=False) if not r.passed}
    assert "saved_is_loaded" in wrong
    assert "arguments_are_documented" in wrong
