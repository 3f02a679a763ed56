"""Numbers as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meliuscli.errors import BadInputError
from meliuscli.units import (
    format_count,
    format_duration,
    format_figure,
    format_mib,
    parse_bytes,
    parse_count,
    parse_duration,
)


@pytest.mark.parametrize(
    "text", ["5e8", "500M", "0.5G", "500_000_000", "500,000,000", "5E8", " 500m ", "0.5b", "500000k"]
)
def test_a_count_can_be_written_in_many_ways(text: str) -> None:
    assert parse_count(text) == 500_000_000


@pytest.mark.parametrize(
    "text", ["abc", "", "-5e8", "0", "5e8x", "nan", "inf", "1e400", "0.5", "5 8", "1.2.3", "e8", ".", "0,5G", "1,5e8"]
)
def test_a_wrong_count_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_count(text)
    assert caught.value.exit_code == 2
    assert "5e8" in (caught.value.hint or "")


def test_a_mebibyte_is_not_a_megabyte() -> None:
    assert parse_bytes("4MiB") == 4 * 2**20
    assert parse_bytes("4MB") == 4_000_000
    assert format_mib(4_065_568) == "3.877 MiB"


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90", "90s", "1.5m", "2h", "3h50m", "1m30s")] == [
        90,
        90,
        90,
        7200,
        13800,
        90,
    ]
    for text in ("", "h", "50m3h", "3h-5m", "3h 50"):
        with pytest.raises(BadInputError, match="not a duration"):
            parse_duration(text)
    assert [format_duration(seconds) for seconds in (5, 90, 7260)] == ["5s", "1m30s", "2h01m"]


def test_counts_read_as_papers_print_them() -> None:
    assert [format_count(n) for n in (208_130_048, 500_000_000, 4_624_220_160, 999, 999_999_999)] == [
        "208.13M",
        "500M",
        "4.6242G",
        "999",
        "1G",
    ]


@given(st.integers(1, 10**17))
def test_formatting_then_parsing_stays_within_five_digits(value: int) -> None:
    assert parse_count(format_count(value)) == pytest.approx(value, rel=1e-4)


def test_nothing_small_is_rounded_to_nothing() -> None:
    shown = [format_figure(value) for value in (16.14, 0.8849, 0.1, 0.00858, 922 / 567_716_352, 0, 12345.6, -0.0043)]
    assert shown == ["16.14", "0.88", "0.10", "0.0086", "1.6e-06", "0.00", "12,346", "-0.0043"]
    assert [format_mib(size) for size in (4_065_568, 104_858, 8992)] == ["3.877 MiB", "0.100 MiB", "8.781 KiB"]


@given(st.floats(1e-9, 1e9))
def test_a_figure_is_within_five_percent_of_its_value(value: float) -> None:
    assert abs(float(format_figure(value).replace(",", "")) / value - 1) <= 0.051
