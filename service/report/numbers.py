"""Numbers as people read them."""


def number(value: float | None) -> str:
    """Three significant digits, with a real minus sign; small and large ones by their power of ten."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    else:
        digits, _, power = f"{value:.1e}".partition("e")
        text = f"{digits}e{int(power)}"
    return text.replace("-", "\N{MINUS SIGN}")


def count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def share(value: float) -> str:
    """As `12%`, `5%`, `0.5%`."""
    return f"{100 * value:.2g}%" if value < 0.995 else f"{100 * value:.0f}%"


def seconds(value: float) -> str:
    """As `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
