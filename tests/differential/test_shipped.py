"""Every shipped spec means the same interpreted and compiled: `nlc verify` at its default small sizes.

Random text, one token, 63 tokens, identical tokens, documents, padding; whole, in pieces, in float32; chunks of 16, 1
and 64.
"""

from __future__ import annotations

import pytest

from nlc.spec import shipped
from nlc.verify import verify


@pytest.mark.timeout(900)
@pytest.mark.parametrize("chunk", [16, 1, 64])
@pytest.mark.parametrize("name", shipped())
def test_shipped_spec_is_verified(name: str, chunk: int) -> None:
    report = verify(name, chunks=(chunk,), full=chunk == 16)
    assert report.passed, "\n".join(report.lines())
    assert report.outcomes
