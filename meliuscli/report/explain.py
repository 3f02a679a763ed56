"""The pages of ``meliuscli explain``: tables made from the values that count, and prose around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meliuscli.arch.published import COUNTS, Contradiction, Published, contradictions, published_rows
from meliuscli.arch.zoo import find_name, load_name
from meliuscli.counting.agreement import ours
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import CONVENTIONS, Convention
from meliuscli.counting.counts import Storage
from meliuscli.errors import BadInputError, unknown_name
from meliuscli.report.background import beliefs, bfloat16, memory, packed, proxies
from meliuscli.report.prose import Part, Section, part_markdown, prose
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.units import format_count

EXAMPLES = ("meliusnet22", "real2binary", "reactnet-a", "dorefanet-alexnet", "pokebnn-1.0", "mobilenet-v1")


def topic_markdown(topic: str) -> str:
    """The page of a topic as Markdown."""
    title = SUMMARIES[topic]
    head = [f"# {title[0].upper()}{title[1:]}\n", f"`meliuscli explain {topic}` prints this page.\n"]
    return "\n".join([*head, *map(part_markdown, TOPICS[topic]())])


def _conventions() -> tuple[Part, ...]:
    rules = Table(
        "Conventions",
        tuple(
            Column(heading, numeric=False)
            for heading in ("name", "source", "layers", "1 MAC", "total", "float MAC", "BN")
        ),
        tuple(_rule_cells(rule) for rule in CONVENTIONS.values()),
    )
    intro = prose(
        """Every paper of this field reports operations, and hardly two count the same. A convention here is the rule of
        one paper, so that its figures can be recomputed and held against others. The layers, MACs and weights of a
        network are always the same; a convention only says which of them are added up and at what price.""",
    )
    why = prose(
        """Why they differ. BMXNet's counter, which made MeliusNet's, BinaryDenseNet's and ResNetE's figures, leaves the
        classifier out because related work did; Bi-Real Net and ReActNet count it. The difference is 0.5M to 1.3M OPs:
        with it MeliusNet22 would print 2.09e8 and not the 2.08e8 of its paper. Real-to-Binary's tool counts elementwise
        work besides, so its FLOPs must not be mixed with the others' (ReActNet's table 1 does). larq adds nothing up:
        it lists MACs by the bits of their wider operand, and a binary weight that meets a float input is a float MAC.
        PokeBNN prices a MAC by the product of its operands' bits, with float as 16 bits. BNext's README counts variants
        whose float parts are quantized to 8 bits, eight of which fit into a 64-bit word.""",
        """The 64 in OPs = FLOPs + BOPs/64 is the number of bits in a machine word: xnor and popcount treat 64 binary
        MACs at once. It is a theory. All conventions here count a MAC once, where some tools count two operations, and
        count the padded border in full. Batch norm has two values a channel where it is ready for inference and up to
        four in a checkpoint (--bn-params); the last column has how many a convention counts.""",
        """A rule of convolutions only goes by how a layer is written. Dense layers that are convolutions whose output is
        one pixel count in it: all layers of TFC, SFC and LFC, those behind the maps of CNV and BinaryAlexNet, the
        classifiers of these five too, those in front of the classifier in XNOR-Net's AlexNet, and squeeze-and-excite in
        BNext and PokeBNN. `count` and `compare` say how many. By a rule that left dense layers out TFC would cost no OPs at
        all.""",
    )
    legends = (f"{rule.name}: {rule.legend}" for rule in CONVENTIONS.values())
    return (*intro, rules, *legends, _example_table(), *why)


def _rule_cells(rule: Convention) -> tuple[Cell, ...]:
    layers = "conv, linear" if rule.linear else "conv"
    total = rule.unit or "none"
    bits = f"{rule.float_bits} bits" if rule.prices_floats else "1"
    source = rule.paper.partition(" (")[0].partition(", and ")[0].replace("arXiv ", "")
    return (
        rule.name,
        source,
        f"{layers}, elementwise" if rule.elementwise else layers,
        str(rule.mac_factor),
        total,
        bits if rule.unit else "",
        str(rule.bn_params),
    )


def _example_table() -> Table:
    rules = tuple(rule for rule in CONVENTIONS.values() if rule.unit)
    rows = []
    for name in EXAMPLES:
        total = count_spec(load_name(name)).total
        values = (rule.derive(total).ops for rule in rules)
        rows.append((name, *(format_count(value) for value in values if value is not None)))
    heads = (Column(f"{rule.name}{' (ACE)' if rule.unit == 'ACE' else ''}") for rule in rules)
    return Table("Totals of the same networks", (Column("network", numeric=False), *heads), tuple(rows))


def _contradictions() -> tuple[Part, ...]:
    intro = prose(
        """Published figures that are not what their own rule gives for the network, or on which sources differ. Ours is
        the count under the source's convention. All other published figures in meliuscli are reproduced to every digit
        that they print; tests hold both lists.""",
    )
    return (*intro, _dispute_table(published_rows()), *_reasons(contradictions()))


def _dispute_table(rows: Sequence[Published]) -> Table:
    cells: list[tuple[Cell, ...]] = []
    for row in rows:
        counted = ours(row)
        for column in (column for column in COUNTS if column in row.disputed):
            cells.append(
                (row.name, column, getattr(row, column), _like(getattr(row, column), counted[column]), row.source)
            )
    columns = (Column("network", numeric=False), Column("what", numeric=False), Column("printed"), Column("ours"))
    return Table("Differences", (*columns, Column("source", numeric=False)), tuple(cells))


def _like(printed: str, value: float) -> str:
    """``value`` with one more digit than ``printed`` shows, in its form."""
    mantissa, e, exponent = printed.lower().partition("e")
    if not e:
        return f"{value:,}" if isinstance(value, int) else f"{value:.{len(mantissa.partition('.')[2]) + 1}f}"
    return f"{value / 10 ** int(exponent):.{len(mantissa.partition('.')[2]) + 1}f}e{exponent}"


def _reasons(entries: Sequence[Contradiction]) -> tuple[Section, ...]:
    return tuple(Section(entry.title, entry.text) for entry in entries)


def _bits() -> tuple[Part, ...]:
    return prose(
        """A multiply-accumulate carries two widths: the bits of its weight and of its activation. Both 1: a binary MAC
        (BOP). One of them float: a float MAC (FLOP), as larq has it, because a one-bit weight that meets a float input
        (BinaryAlexNet's first layer) only saves memory. All others are n-bit MACs: DoReFa-Net's 1x2, PokeBNN's 4x4 in
        squeeze-and-excite and 8x8 at its ends. Tables show them in a column of their own when a network has any.""",
        """What an n-bit MAC costs is a convention. Papers with OPs = FLOPs + BOPs/64 do not say; here it is w*a/64 of an
        operation and at most 1, because a w-by-a-bit product is w*a binary ones (DoReFa-Net, equation 3): an 8x8-bit MAC
        costs what a float one does. PokeBNN's ACE is w*a. BNext's rule is max(w, a)/64, lanes of a 64-bit word.""",
        """In a module of your own bits are evidence, and names are hints. For each operand the first of these decides:
        your word (--bits PATTERN=WxA, --binary PATTERN); what the layer states, or the quantizer that made the operand,
        as weight_bits, w_bit, num_bits, bit_width() and the like; a type of a byte; the distinct values seen in
        one run, over the whole tensor or channel by channel: two are one bit, three or four are two, up to 16 four, up to
        256 (or on an even grid of so many steps) eight, and more are float. So weights of two values on a float input are
        float MACs of one-bit weights, as in larq's first layers. Zeros that pad a map are none of its values, nor are
        copies of a line (a map that was made larger); what is there once, beside zeros or a bound, is a float (pruned
        weights, a sparse map). Sums, as a product or a mean gives them, are floats until they are rounded or compared;
        so are a narrow range in a half float and rows that are copies of one another (a blur, a word that comes again).
        Weights may have a scale for each 32, 64 or 128 in a row. Several sets of signs made of
        one tensor, as in ABC-Net, are stored each. Of a table (an embedding) what is looked up decides. Packed signs that
        are multiplied by XOR or AND, however their bits are counted then, are a binary MAC a bit.""",
        """Ternary values take two bits: log2(3) = 1.58 is what they hold, but two is what it takes to store one and to
        multiply it, so --bits takes 1.58 and ternary for 2.""",
        """Thin evidence takes the dearer reading: two values of activations of which one is rare, or which are opposite
        and not 1, may be two of four, unless they were made by a sign or one comparison and then scaled; weights that are
        signs all alike, as before a training, are floats, which is said. A layer with a binary layer's name
        (BinaryConv2d, HardBinaryConv, XnorLinear) asks the question: where its activations take two values its float
        weights may be yet to be made binary, and zeros among signs may be torch's sign of zero. Then it counts as binary
        with a doubt; so does a layer whose values deny what it states. The JSON has, layer by layer, the bits, why, the
        doubt, and what it would be without (dearer); where the network would cost over 5 % more, doubts lists them, and
        --max-ops is exit 1 where the dearer count is above it.""",
        """Sizes take each weight at its own bits and every other parameter (batch norm, biases, PReLU, shifts) at 32
        bits, or at --float-bits; in a module of your own at those of its type (half 16, double 64, complex twice 32), with
        the places of sparse values, and with buffers where a product multiplies them or where they are tables and codes of
        a byte. A tensor that wraps others (torchao,
        optimum-quanto) is these.""",
    )


def _size() -> tuple[Part, ...]:
    total, stored = (count_spec(load_name("meliusnet22"), Storage(bn_params=n)).total for n in (2, 4))
    return prose(
        f"""Size is what the parameters take: binary weights one bit, others their bits or 32, each layer rounded up to
        whole bytes. Papers print MiB (2^20 bytes) and call it MB: MeliusNet22 has {total.size_bytes:,} bytes, which is
        {total.size_bytes / 2**20:.3f} MiB (printed: 3.88) and {total.size_bytes / 1e6:.3f} MB.""",
        f"""Batch norm has two values a channel: at inference mean and variance are folded into scale and shift. larq
        counted up to four until 2020 and its docstrings still do; with --bn-params 4 MeliusNet22 has
        {stored.params:,} params and {stored.size_bytes / 2**20:.3f} MiB. A channel whose batch norm has no scale stores
        three, one without scale and shift two.""",
        """--float-bits 8 gives the size with 8-bit floats. Activations are not counted: `meliuscli explain memory` has what a
        network needs while it runs.""",
    )


def _roads() -> tuple[Part, ...]:
    return prose(
        """Every named network is counted on two roads that were written independently. The first unrolls the spec into
        layers and multiplies; it needs no torch and answers at once. The second builds the torch module and runs one
        image through it under fvcore, which sees the operations that really happen; bits and parameters are the
        modules' own. `count` prints the first and says that the second agrees, layer by layer, or where it does not.
        A module of your own (FILE.py:FACTORY) has the second road only.""",
    )


TOPICS: dict[str, Callable[[], tuple[Part, ...]]] = {
    "conventions": _conventions,
    "contradictions": _contradictions,
    "bits": _bits,
    "size": _size,
    "memory": memory,
    "roads": _roads,
    "beliefs": beliefs,
    "proxies": proxies,
    "packed": packed,
    "bfloat16": bfloat16,
}
SUMMARIES = {
    "conventions": "how each paper counts, and why they differ",
    "contradictions": "published figures that are not what their own rule gives",
    "bits": "operations of more than one bit",
    "size": "what a size is made of: bits, batch norm, MiB",
    "memory": "what RAM, flash and the arena are, and where they are exact",
    "roads": "what 'verified' means: two roads to every number",
    "beliefs": "what a believed accuracy is, and where it ends",
    "proxies": "what a short training says, and what it does not",
    "packed": "how binary networks run fast on a processor",
    "bfloat16": "training in half of the bits",
}


def topics() -> tuple[str, ...]:
    """The list of topics, a line each."""
    lines = (f"  {name:16}{what}" for name, what in SUMMARIES.items())
    return ("Topics (meliuscli explain TOPIC):", *lines, "  NETWORK         what is disputed about it")


def explain_page(topic: str) -> tuple[Part, ...]:
    """The page of a topic or of a network. Raises ``BadInputError`` for what is neither."""
    if topic.lower() in TOPICS:
        return TOPICS[topic.lower()]()
    try:
        return _network(find_name(topic))
    except BadInputError:
        raise unknown_name("topic", topic, TOPICS) from None


def _network(name: str) -> tuple[Part, ...]:
    entries = [entry for entry in contradictions() if name in entry.archs]
    rows = [row for row in published_rows() if row.arch == name]
    disputed = [row for row in rows if row.disputed]
    if not entries:
        return prose(
            f"{name}: nothing is disputed. All {len(rows)} published rows agree with our count to every digit that they"
            f" print (meliuscli show {name})."
            if rows
            else f"{name}: nothing is published, so nothing is disputed."
        )
    return (*([_dispute_table(disputed)] if disputed else []), *_reasons(entries))
