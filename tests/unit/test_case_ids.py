"""Names of cases: the same in every process that collects them."""

import os
import uuid

import pytest


@pytest.mark.parametrize("value", [b"", os.urandom(8), f"{uuid.uuid4()}" * 2, "short"])
def test_what_differs_between_processes_names_no_case(request: pytest.FixtureRequest, value: bytes | str) -> None:
    """Catches compressed bytes, with the second of their compression in them, that name a case: two workers then find
    different tests, and run none."""
    name = request.node.name.partition("[")[2]
    assert name in (["short]"] if value == "short" else ["value0]", "value1]", "value2]"])
