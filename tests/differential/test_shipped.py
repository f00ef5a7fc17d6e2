"""Every shipped spec means the same interpreted and compiled, at the default small sizes of `nlc verify`.

The specs of different lowerings in every case: random text, one token, 63 tokens, identical tokens, documents, padding;
whole, in pieces, in float32; chunks of 16, 1 and 64.  The others in the main case; `nlc verify --all` has the rest,
every spec in chunks of 1 and 64 too (tests/unit/test_judge.py says so).
"""

from __future__ import annotations

import pytest

from nlc.spec import shipped
from nlc.verify import verify

THOROUGH = ("hope", "hope_attention", "hope_deep", "linear_attention", "titans_lmm", "transformer")
CHUNKS = {name: (16, 1, 64) if name in THOROUGH else (16,) for name in shipped()}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "chunk"), [(name, chunk) for name in shipped() for chunk in CHUNKS[name]])
def test_shipped_spec_is_verified(name: str, chunk: int) -> None:
    report = verify(name, chunks=(chunk,), full=chunk == 16 and name in THOROUGH)
    assert report.passed, "\n".join(report.lines())
    assert report.outcomes
