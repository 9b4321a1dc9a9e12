"""Numbers as a card shows them."""


def count(number: float) -> str:
    """1234567 -> '1.2 million'."""
    for size, word in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if number >= 0.9995 * size:  # 999.96 million would be 1e+03 million
            return f"{number / size:.3g}{word}"
    return exact(number)


def exact(number: float) -> str:
    """1234567 -> '1,234,567'; fractions to three digits."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.3g}" if abs(number) < 1000 else f"{number:,.0f}"


def duration(seconds: float) -> str:
    """5400 -> '90 minutes'."""
    for size, word in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {word}"
    return f"{seconds:.3g} seconds"
