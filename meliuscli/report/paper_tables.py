"""MeliusNet's tables (arXiv 2001.05936, as its authors' wiki records them) counted again: ours beside the published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from meliuscli.arch.published import Published, published_for
from meliuscli.arch.zoo import load_arch
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import CONVENTIONS, MELIUS, Convention
from meliuscli.counting.counts import Count
from meliuscli.report.counted import Counted, View
from meliuscli.report.pareto import draw_pareto
from meliuscli.report.tables import Cell, Column, Table, to_csv, to_latex, to_markdown
from meliuscli.results import write_text
from meliuscli.units import format_figure

MELIUSNETS = tuple(f"meliusnet{name}" for name in ("22", "29", "42", "59", "-a", "-b", "-c"))
STEM_NETWORKS = ("resnete18", "resnete34", "binarydensenet28", "binarydensenet37", "meliusnet22", "meliusnet29")
BLOCK_PAIRS = (("binarydensenet28", "meliusnet22"), ("binarydensenet37", "meliusnet29"))
MOBILENET_PAIRS = (
    ("mobilenet-v1-0.5", "meliusnet-c"),
    ("mobilenet-v1-0.75", "meliusnet42"),
    ("mobilenet-v1", "meliusnet59"),
)
NOTES = (
    "ours: counted by meliuscli; published: as the authors print it; accuracies are published, none is measured here",
    f"{MELIUS.legend} (MobileNets with the classifier, as their paper has them); MiB: 2^20 bytes, 1 bit a binary"
    " weight, 32 bits any other, 2 values a batch-norm channel",
)


def paper_tables() -> dict[str, Table]:
    """File name without suffix -> table."""
    return {
        "meliusnets": _table("MeliusNets on ImageNet-1k", [[(name, "")] for name in MELIUSNETS]),
        "stems": _table(
            "The 7x7 stem and the grouped stem, same recipe",
            [[(name, "stem=imagenet"), (name, "stem=grouped")] for name in STEM_NETWORKS],
        ),
        "improvement-blocks": _table(
            "DenseBlocks alone (BinaryDenseNet) and with ImprovementBlocks (MeliusNet), at about equal size and OPs",
            [
                [(one, f"stem={stem}"), (other, f"stem={stem}")]
                for stem in ("imagenet", "grouped")
                for one, other in BLOCK_PAIRS
            ],
        ),
        "mobilenets": _table(
            "MeliusNets and the MobileNets of about equal OPs",
            [[(one, ""), (other, "")] for one, other in MOBILENET_PAIRS],
        ),
    }


def write_paper_tables(directory: Path) -> list[Path]:
    """Write ``README.md`` with all tables, each as CSV and LaTeX, and the picture of MeliusNets and their peers."""
    tables = paper_tables()
    content = {
        "README.md": "\n".join(
            [
                "# MeliusNet's tables, counted again\n",
                "Made by `meliuscli paper-tables`; `meliusnets.csv`, `.tex` and so on hold the same.\n",
                *map(to_markdown, tables.values()),
                "![Published top-1 against our OPs](pareto.png)\n",
            ]
        ),
        **{f"{name}.csv": to_csv(table) for name, table in tables.items()},
        **{f"{name}.tex": to_latex(table) for name, table in tables.items()},
    }
    for name, text in content.items():
        write_text(directory / name, text)
    names = dict.fromkeys((*MELIUSNETS, *STEM_NETWORKS, *(name for pair in MOBILENET_PAIRS for name in pair)))
    networks = [
        Counted(name, spec, spec.input_shape, count_spec(spec)) for name in names for spec in [load_arch(name).spec]
    ]
    draw_pareto(networks, View(MELIUS), directory / "pareto.png")
    return [directory / name for name in (*content, "pareto.png")]


def _table(title: str, groups: Sequence[Sequence[tuple[str, str]]]) -> Table:
    """Groups of (name, override) row by row; in a group the accuracies' difference to its first."""
    records = [record for group in groups for record in _group(group)]
    grouped = any(len(group) > 1 for group in groups)
    columns = [
        Column("network", numeric=False),
        *map(Column, ("OPs ours", "OPs published", "MiB ours", "MiB published", "params ours", "params published")),
        *map(Column, ("top-1", "top-5")),
        *([Column("top-1 gain")] if grouped else []),
    ]
    rows = tuple(tuple(_shown(key, value) for key, value in record.items()) for record in records)
    return Table(
        title, tuple(columns), rows if grouped else tuple(row[:-1] for row in rows), notes=NOTES, records=tuple(records)
    )


def _group(group: Sequence[tuple[str, str]]) -> list[dict[str, Cell]]:
    records: list[dict[str, Cell]] = []
    first: float | None = None
    for name, override in group:
        spec = load_arch(name, [override] if override else []).spec
        row = next(row for row in published_for(spec) if row.ops)
        rule = CONVENTIONS[row.convention]
        record = _record(f"{name} {override}".strip(), count_spec(spec).total, rule, row)
        gain = None if first is None else round(float(row.top1) - first, 2)
        first = float(row.top1) if first is None else first
        records.append({**record, "top1_gain": gain})
    return records


def _record(name: str, total: Count, rule: Convention, row: Published) -> dict[str, Cell]:
    return {
        "network": name,
        "ops": rule.derive(total).ops,
        "published_ops": row.ops,
        "size_bytes": total.size_bytes,
        "published_size_mib": row.size_mib,
        "params": total.params,
        "published_params": row.params,
        "published_top1": row.top1,
        "published_top5": row.top5,
    }


def _shown(key: str, value: Cell) -> Cell:
    if key == "ops" and isinstance(value, int | float):
        return f"{value / 1e6:.2f}M"
    if key == "published_ops" and isinstance(value, str):
        return f"{value.removesuffix('e6')}M" if value.endswith("e6") else value
    if key == "size_bytes" and isinstance(value, int):
        return format_figure(value / 2**20)
    if key == "published_params" and isinstance(value, str) and value.isdigit():
        return int(value)
    return f"{value:+.1f}" if key == "top1_gain" and isinstance(value, float) else value
