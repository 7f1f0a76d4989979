# SPDX-License-Identifier: Apache-2.0
"""What counting costs with very many connections. The figures are printed; the bounds are wide."""

import pytest

from crowd import N, enough_descriptors, measure

pytestmark = pytest.mark.long


def test_counting_does_not_keep_the_loop():
    if not enough_descriptors():
        pytest.skip(f"{N} connections need a higher limit of descriptors (ulimit -Hn)")
    found = measure()
    print("counting:", {key: round(value, 2) for key, value in found.items()})
    assert found["looks"] >= 2
    # Of the processor: what a busy machine does meanwhile is not in it.
    assert found["longest_median"] < 5
    assert found["beside_p99"] < 20 * found["steady_p99"] + 25
