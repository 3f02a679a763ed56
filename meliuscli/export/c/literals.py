"""Python values as C has them, and what images go through as a part of ``test/vectors.h``. No torch."""

from __future__ import annotations

from meliuscli.data.preprocessing import Preprocessing


def c_float(value: float) -> str:
    """A decimal that gives the same float again; what nothing is above or equal to as infinity."""
    if value != value:
        return "INFINITY"
    text = f"{value:.9g}"
    return f"{text}f" if any(mark in text for mark in ".en") else f"{text}.0f"


def c_string(text: str) -> str:
    """Anything but plain ASCII as octal escapes."""
    inside = "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode())
    return f'"{inside}"'


def images_text(prefix: str, how: Preprocessing | None, num_classes: int) -> str:
    """Sizes of images, mean and deviation of the channels, names of the classes."""
    upper = prefix.upper()
    names = [f"class {label}" if how is None else how.name_of(label) for label in range(num_classes)]
    classes = ",\n".join(f"    {c_string(name)}" for name in names)
    if how is None:
        norm = f"#define {upper}_IS_NORMALISED 0\nstatic const float {prefix}_mean[] = {{0.0f}}, {prefix}_deviation[] = {{1.0f}};"
    else:
        mean, deviation = (", ".join(map(c_float, values)) for values in (how.mean, how.std))
        norm = f"""/* Of an image the middle square at {how.resize}x{how.resize}, of that the middle {how.crop}x{how.crop}, brought to {how.input_size}x{how.input_size}. */
#define {upper}_IS_NORMALISED 1
static const float {prefix}_mean[] = {{{mean}}};
static const float {prefix}_deviation[] = {{{deviation}}};"""
    return f"{norm}\nstatic const char *const {prefix}_class_names[] = {{\n{classes}}};\n"
