"""Counting a module of the user's own: MACs by hand, recognition, verdicts, and everything that a user's file can do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import Cli, run_here
from torch import Tensor, nn

from meliuscli.arch.zoo import load_arch
from meliuscli.cli.compare import compare
from meliuscli.cli.count import count
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.foreign import Example, OwnCount, count_own, load_module
from meliuscli.errors import BadInputError, FailedError, MissingError
from meliuscli.nn.build import build

SHAPE = (3, 8, 8)
CONV_MACS = 3 * 4 * 9 * 64
"""A 3x3 convolution from three channels to four on 8x8 pixels, padded."""


class SignSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return grad


def signed(x: Tensor) -> Tensor:
    return SignSTE.apply(x)  # type: ignore[no-untyped-call, no-any-return]


class BinaryConv2d(nn.Conv2d):
    """Style 1: a subclass that calls F.conv2d."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(signed(x), signed(self.weight), padding=1)


class QuantConv2D(nn.Conv2d):
    """Style 2: through torch's own ``_conv_forward``."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(signed(x), signed(self.weight), None)


class Sign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return signed(x)


class QConv2d(nn.Conv2d):
    """Style 3: with a child for the activations, as bitorch has it."""

    def __init__(self, *args: int, **kwargs: int) -> None:
        super().__init__(*args, **kwargs, bias=False)  # type: ignore[arg-type]
        self.activation = Sign()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.activation(x), signed(self.weight), padding=1)


class HardBinaryConv(nn.Module):
    """Style 4: a plain module with a weight of its own, as ReActNet's authors have it."""

    def __init__(self, channels: int, width: int, *_: int, **__: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, channels, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean((1, 2, 3), keepdim=True).detach()
        return F.conv2d(signed(x), signed(self.weight) * scale, padding=1)


class HiddenConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):  # type: ignore[no-untyped-def]
        return F.conv2d(torch.where(x >= 0, 1.0, -1.0), torch.where(weight >= 0, 1.0, -1.0), padding=1)


class XnorConv2d(HardBinaryConv):
    """Style 5: the convolution hidden in an autograd Function, where fvcore sees nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return HiddenConv.apply(x, self.weight)  # type: ignore[no-untyped-call, no-any-return]


def ending(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def says(own: OwnCount) -> str:
    return "\n".join(f"{v.what} {', '.join(v.modules)}: {v.verdict}" for v in own.verdicts)


@pytest.mark.parametrize("style", [BinaryConv2d, QuantConv2D, QConv2d, HardBinaryConv, XnorConv2d])
def test_five_styles_of_writing_a_binary_convolution(style: type[nn.Module]) -> None:
    kwargs = {"bias": False} if style in (BinaryConv2d, QuantConv2D) else {}
    own = count_own(ending(style(3, 4, 3, padding=1, **kwargs)), SHAPE)
    total = own.count.total
    assert (total.binary_macs, total.float_macs) == (CONV_MACS, 8)
    assert (total.binary_params, total.params) == (108, 108 + 8 + 10)
    assert total.size_bytes == -(-108 // 8) + 4 * 18
    assert own.recognised == {"0": "binary: weights and activations take two values"}
    assert not any(verdict.doubt for verdict in own.verdicts)


def test_what_runs_inside_an_autograd_function_counts_without_a_word() -> None:
    own = count_own(ending(XnorConv2d(3, 4)), SHAPE)
    assert own.count.total.binary_macs == CONV_MACS
    assert own.verdicts == ()


def test_our_own_networks_count_as_by_their_spec() -> None:
    for name in ("meliusnet22", "pokebnn-0.5", "dorefanet-alexnet", "bnext-t", "abcnet18"):
        spec = load_arch(name, ["input_size=64"]).spec
        total, wanted = count_own(build(spec), spec.input_shape).count.total, count_spec(spec).total
        assert total.macs == wanted.macs
        assert total.weights == wanted.weights


def test_patterns_name_binary_layers_with_all_below() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), ending(nn.Conv2d(4, 4, 3, padding=1)))
    assert count_own(network, SHAPE).count.total.binary_macs == 0
    own = count_own(network, SHAPE, ("1.0",))
    assert own.count.total.binary_macs == 4 * 4 * 9 * 64
    assert own.recognised == {"1.0": "binary by --binary 1.0"}
    everything = count_own(network, SHAPE, ("1",))
    assert everything.count.total.binary_macs == 4 * 4 * 9 * 64 + 8
    # The first convolution, biases and the norm's values stay float.
    assert everything.count.total.float_params == 108 + 4 + 8 + 2


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("foo*", "no module of the network has such a name"), ("1", "matches only modules without weights")],
)
def test_a_pattern_that_names_nothing_to_make_binary_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        count_own(ending(nn.Conv2d(3, 4, 3, padding=1)), SHAPE, (pattern,))


def test_a_name_alone_decides_nothing() -> None:
    class BinaryLinear(nn.Linear):
        """Not binary at all."""

    own = count_own(nn.Sequential(nn.Flatten(), BinaryLinear(192, 2)), SHAPE)
    assert own.count.total.binary_macs == 0
    assert "its name is that of a binary layer, but its weights and activations take more than two values" in says(own)
    quiet = count_own(ending(BinaryConv2d(3, 4, 3, padding=1, bias=False)), SHAPE)
    assert "doubt" not in says(quiet)


def test_signs_in_a_layer_of_another_name_are_binary_too() -> None:
    class Layer(HardBinaryConv):
        pass

    Layer.__mro__[1].__name__ = "Plain"  # its base has a name that is recognised
    try:
        own = count_own(ending(Layer(3, 4)), SHAPE)
    finally:
        Layer.__mro__[1].__name__ = "HardBinaryConv"
    assert own.count.total.binary_macs == CONV_MACS
    assert not any(verdict.doubt for verdict in own.verdicts)


def test_layers_that_are_never_called_and_layers_that_are_called_twice() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.unused = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Linear(5, 5)
            self.again = self.conv

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.conv(x))  # type: ignore[no-any-return]

    own = count_own(Net(), SHAPE)
    assert own.count.total.float_macs == 2 * 3 * 3 * 9 * 64
    assert own.count.total.params == 81 + 30
    assert "never called: its 30 weights count" in says(own)


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(3, 6, 3, groups=3), (3, 8, 8), 6 * 9 * 36),
        (nn.ConvTranspose2d(3, 4, 2, stride=2), (3, 8, 8), 3 * 4 * 4 * 64),
        (nn.Conv2d(3, 4, 3, dilation=2), (3, 8, 8), 3 * 4 * 9 * 16),
        (nn.Linear(8, 5), (3, 8, 8), 3 * 8 * 8 * 5),
        (nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 4, 5)), (3, 8, 8), 3 * 4 * 5 * 60),
        (nn.Sequential(nn.Flatten(2), nn.MultiheadAttention(64, 4, batch_first=True)), (3, 8, 8), None),
        (nn.Sequential(nn.Flatten(2), nn.LSTM(64, 16)), (3, 8, 8), None),
    ],
)
def test_macs_of_other_layers(layer: nn.Module, shape: tuple[int, int, int], macs: int | None) -> None:
    if isinstance(layer, nn.Sequential) and isinstance(layer[-1], nn.MultiheadAttention):

        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = layer[-1]

            def forward(self, x: Tensor) -> Tensor:
                x = x.flatten(2)
                return self.inner(x, x, x)[0]  # type: ignore[no-any-return]

        # Three tokens: projections in and out, and twice tokens^2 * width.
        own, macs = count_own(Attention(), shape), 3 * 64 * 64 * 3 + 2 * 9 * 64 + 3 * 64 * 64
    else:
        own = count_own(layer, shape)
    if macs is None:
        # Three steps of one matrix each for input and state, four gates.
        macs = 3 * 4 * 16 * (64 + 16)
    counted = own.count.total.float_macs
    assert counted == macs or any(verdict.doubt for verdict in own.verdicts), (counted, macs, says(own))
    if not isinstance(layer, nn.Sequential) or not isinstance(layer[-1], nn.LSTM):
        assert counted == macs


def test_the_model_is_left_as_it_was() -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm, self.drop = nn.BatchNorm2d(4), nn.Dropout()
            self.register_buffer("calls", torch.zeros(()))
            self.calls: Tensor
            self.count = 0

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            self.calls += 1
            with torch.no_grad():
                self.conv.weight.add_(1.0)
            return self.drop(self.norm(self.conv(x)))  # type: ignore[no-any-return]

    network = Stateful().train()
    network.norm.eval()
    network.conv.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    count_own(network, SHAPE)
    assert torch.equal(torch.rand(1), wanted)
    assert network.training
    assert network.drop.training
    assert not network.norm.training
    assert not network.conv.weight.requires_grad
    assert network.count == 0
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_networks_that_return_other_things_than_a_tensor() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)

        def forward(self, x: Tensor) -> dict[str, object]:
            return {"out": self.conv(x), "more": [x, None]}

    assert count_own(Net(), SHAPE).count.total.float_macs == CONV_MACS


def test_an_input_that_the_network_does_not_take() -> None:
    with pytest.raises(BadInputError, match="cannot take an input of 1x8x8: RuntimeError: Given groups=1") as caught:
        count_own(ending(nn.Conv2d(3, 4, 3)), (1, 8, 8))
    assert "--input" in (caught.value.hint or "")


# What counts is what is seen


class QuantConv2d(nn.Conv2d):
    """As larq's first layer: binary weights, and an input that nothing quantizes."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, signed(self.weight), padding=1)


class TernaryQConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        few = self.weight.abs() < 0.7 * self.weight.abs().mean()
        return F.conv2d(signed(x), torch.where(few, 0.0, signed(self.weight)), padding=1)


def test_binary_weights_on_float_inputs_are_float_macs_and_one_bit_each() -> None:
    own = count_own(ending(QuantConv2d(3, 4, 3, padding=1, bias=False)), SHAPE)
    total = own.count.total
    assert (total.binary_macs, total.float_macs, total.binary_params) == (0, CONV_MACS + 8, 108)
    assert own.recognised == {
        "0": "binary weights, float MACs: weights take two values, activations take more than 256 values"
    }
    assert not any(verdict.doubt for verdict in own.verdicts)


def test_what_the_user_names_binary_counts_as_binary_with_a_doubt() -> None:
    own = count_own(ending(QuantConv2d(3, 4, 3, padding=1, bias=False)), SHAPE, ("0",))
    assert own.count.total.binary_macs == CONV_MACS
    assert "counts as binary, but its activations take more than two values" in says(own)


def test_three_values_of_a_weight_are_two_bits() -> None:
    torch.manual_seed(0)
    TernaryQConv2d.__name__ = "BinaryConv2d"
    own = count_own(ending(TernaryQConv2d(3, 4, 3, padding=1, bias=False)), SHAPE)
    total = own.count.total
    assert (total.binary_macs, total.quantized_macs, total.binary_params) == (0, CONV_MACS, 0)
    assert dict(total.weights)[2] == 108
    assert own.recognised == {"0": "2x1 bits: weights take three values, activations take two values"}
    named = count_own(ending(TernaryQConv2d(3, 4, 3, padding=1, bias=False)), SHAPE, ("0",))
    assert named.count.total.binary_macs == CONV_MACS
    assert "counts as binary, but its weights take three values" in says(named)


class Padded(nn.Module):
    """Pads signs with zeros, and does its child's work."""

    def __init__(self, fill: float = 0.0) -> None:
        super().__init__()
        self.conv, self.fill = nn.Conv2d(3, 4, 3, bias=False), fill

    def forward(self, x: Tensor) -> Tensor:
        x = signed(x)
        x = torch.cat([x[..., :4], torch.full_like(x[..., :1], self.fill), x[..., 5:]], 3) if self.fill else x
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), signed(self.conv.weight))


def test_zeros_that_pad_are_no_third_value() -> None:
    own = count_own(ending(Padded()), SHAPE)
    assert own.recognised == {"0.conv": "binary: weights and activations take two values"}
    named = count_own(ending(Padded()), SHAPE, ("0*",))
    for total in (own.count.total, named.count.total):
        assert (total.binary_macs, total.binary_params) == (CONV_MACS, 108)
    assert not any(verdict.doubt for verdict in named.verdicts)
    assert count_own(ending(Padded(0.5)), SHAPE).count.total.quantized_macs == CONV_MACS


def test_zeros_inside_a_map_are_doubted() -> None:
    class SignConv2d(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.where(x < -0.4, -1.0, torch.where(x > 0.4, 1.0, 0.0))
            return F.conv2d(F.pad(x, (1, 1, 1, 1)), signed(self.weight))

    SignConv2d.__name__ = "BinaryConv2d"
    own = count_own(ending(SignConv2d(3, 4, 3, bias=False)), SHAPE)
    assert own.count.total.binary_macs == CONV_MACS
    assert "zero is a third value of its activations" in says(own)


def test_a_single_zero_among_the_signs_of_weights_is_no_third_value() -> None:
    class TorchSign(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(signed(x), torch.sign(self.weight), padding=1)

    TorchSign.__name__ = "BinaryConv2d"
    layer = TorchSign(3, 4, 3, bias=False)
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = 0.0
    own = count_own(ending(layer), SHAPE)
    assert own.count.total.binary_macs == CONV_MACS
    assert not any(verdict.doubt for verdict in own.verdicts)


@pytest.mark.parametrize("words", [("four", -3), (4, 64), (True, 1), (2, None)])
def test_bits_that_are_none_are_ignored_with_a_doubt(words: tuple[object, object]) -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    layer.weight_bits, layer.activation_bits = words  # type: ignore[assignment]
    own = count_own(ending(layer), SHAPE)
    assert own.count.total.float_macs == CONV_MACS + 8
    if words != (2, None):
        assert "no bits (1 to 32), ignored; counts as float" in says(own)
        assert any(verdict.doubt for verdict in own.verdicts)


@pytest.mark.parametrize("module", [nn.Identity(), nn.ReLU(), nn.Sequential()])
def test_a_network_without_anything_to_count_is_zero(module: nn.Module) -> None:
    own = count_own(module, SHAPE)
    assert (own.count.total.macs, own.count.total.params) == ((), 0)
    assert own.count.rows("stage") == ()


def test_a_scripted_network_is_refused() -> None:
    with pytest.raises(BadInputError, match="a scripted network"):
        count_own(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3))), SHAPE)


class Leaving(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "message"), [(SystemExit(0), "ends the program"), (Leaving("x"), "Leaving: x"), (ValueError("y"), "y")]
)
def test_whatever_a_forward_raises_is_said(error: BaseException, message: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    with pytest.raises(BadInputError, match=message):
        count_own(Net(), SHAPE)


def test_ctrl_c_in_a_forward_is_the_users() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_own(Net(), SHAPE)


def test_an_attribute_that_raises_is_none() -> None:
    class Odd(nn.Conv2d):
        @property
        def weight_bits(self) -> int:
            raise SystemExit(3)

    assert count_own(ending(Odd(3, 4, 3, padding=1, bias=False)), SHAPE).count.total.float_macs == CONV_MACS + 8


def test_products_without_weights_count_in_the_module_that_does_them() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 8))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.einsum("bchw,cd->bdhw", x, self.w).flatten(2)
            return torch.bmm(y, y.transpose(1, 2))

    own = count_own(Net(), SHAPE)
    assert own.count.total.float_macs == 3 * 8 * 64 + 8 * 64 * 8
    assert own.verdicts == ()


# Files


FILE = """
import sys
from torch import nn
print("noise on stdout")
class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.fc = nn.Linear(width, 2)
    def forward(self, x):
        print("more noise")
        return self.fc(self.stem(x).mean((2, 3)))
network = Net()
number = 3
def make_net(): return Net()
def needs(width): return Net(width)
def raises(): raise ValueError("out of\\nideas")
def leaves(): sys.exit("bye")
def nothing(): return [Net()]
class BinaryLinear(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x.sign(), self.weight.sign())
class BinaryConv2d(nn.Conv2d):
    def forward(self, x):
        return nn.functional.conv2d(1 - 2.0 * (x < 0), self.weight)
class Exit(nn.Module):
    def forward(self, x): sys.exit(0)
def dense(): return nn.Sequential(nn.Flatten(), BinaryLinear(192, 64, bias=False))
def liar(): return nn.Sequential(BinaryConv2d(3, 4, 3))
def torn(): return nn.Linear(3, 4)
def greedy(): import torch; torch.empty(2**50)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize("name", ["make_net", "Net", "network"])
def test_functions_classes_and_networks_can_be_named(file: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    paths, modules = sys.path[:], set(sys.modules)
    assert type(load_module(f"{file}:{name}")).__name__ == "Net"
    assert capsys.readouterr().out == ""
    assert sys.path == paths
    assert not {m for m in set(sys.modules) - modules if m.startswith("net")} - {
        m for m in sys.modules if m.startswith("net ")
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needs", r"needs arguments \(width\)"),
        ("raises", r"line \d+: raises\(\) raises ValueError: out of$"),
        ("leaves", "ends the program"),
        ("nothing", "returns no torch.nn.Module but a list"),
        ("number", "is neither a network nor a function but a int"),
        ("make_nets", "unknown network 'make_nets'"),
        ("", "which network of this file"),
    ],
)
def test_factories_that_do_not_make_a_network(file: Path, name: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        load_module(f"{file}:{name}")
    assert str(file) in caught.value.message


@pytest.mark.parametrize(
    ("content", "message", "error"),
    [
        ("def make_net(:", "line 1: syntax error", BadInputError),
        ("import nothing_of_this_name", "needs the package 'nothing_of_this_name'", MissingError),
        ("1 / 0", "line 1: executing it raises ZeroDivisionError", BadInputError),
        ("raise SystemExit(3)", "ends the program", BadInputError),
        ("x = 1", "has no 'make_net', nor any other network", BadInputError),
        ("\xff\xfe", "syntax error|null bytes|raises|invalid", BadInputError),
    ],
)
def test_files_that_cannot_be_executed(
    tmp_path: Path, content: str, message: str, error: type[BadInputError] | type[MissingError]
) -> None:
    path = tmp_path / "bad.py"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(error, match=message):
        load_module(f"{path}:make_net")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        load_module(f"{tmp_path}/none.py:make_net")


def test_siblings_of_the_file_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "layers_of_mine.py").write_text("from torch import nn\nclass Mine(nn.Conv2d): pass\n")
    (tmp_path / "net.py").write_text("from layers_of_mine import Mine\ndef make_net(): return Mine(3, 4, 3)\n")
    assert type(load_module(f"{tmp_path}/net.py:make_net")).__name__ == "Mine"
    assert "layers_of_mine" not in sys.modules


# The command line


def test_count_a_file_as_a_table_and_as_json(file: Path, cli: Cli) -> None:
    done = cli("count", "--arch", f"{file}:make_net", "--input", "3x8x8")
    assert done.returncode == 0, done.stderr
    assert "noise" not in done.stdout
    assert "noise" in done.stderr
    assert "6,920" in done.stdout
    assert "all layers count as float: none is seen to have fewer bits" in done.stdout
    assert max(map(len, done.stdout.splitlines()[1:])) <= 100
    done = cli("count", "--arch", "net.py:make_net", "--input", "3x8x8", "--binary", "stem", "--format", "json")
    value = json.loads(done.stdout)
    assert value["archid"] is None
    assert value["verified"] is None
    assert value["total"]["binary_macs"] == CONV_MACS
    assert value["recognised"] == {"stem": "binary by --binary stem"}
    assert any(verdict["doubt"] for verdict in value["verdicts"])


def test_compare_takes_files_too(file: Path, cli: Cli) -> None:
    done = cli("compare", f"{file}:make_net", "meliusnet22", "--input", "64", "--format", "json")
    value = json.loads(done.stdout)["networks"]
    assert [entry["arch"] for entry in value] == [f"{file}:make_net", "meliusnet22"]
    assert [entry["input"] for entry in value] == [[3, 64, 64]] * 2


def test_bench_times_files_in_torch_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "two.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Two(nn.Linear):\n    def forward(self, x, *, scale):\n        print('noise')\n        return super().forward(x) * scale\n"
        "def two(): return Two(8, 4), {'x': torch.ones(1, 3, 8), 'scale': torch.ones(1, 1, 1)}\n"
        "class Uncopied(nn.Conv2d):\n    def __deepcopy__(self, memo): raise TypeError('not twice')\n"
        "def uncopied(): return Uncopied(3, 4, 3)\n"
        "class One(nn.Module):\n    def forward(self, x): return x.view(1, 192)\n"
    )
    run_here(
        "bench", f"{tmp_path}/two.py:two", *["--runs", "2", "--batch", "5", "--opponents", "none", "--format", "json"]
    )
    (network,) = json.loads(capsys.readouterr().out)["networks"]
    assert (network["input"], network["batch"], network["archid"]) == ([3, 8], 5, None)
    assert [(one["name"], one["times_eager"]) for one in network["runs"]] == [("eager", 1)]
    assert network["size_bytes"] == 4 * (32 + 4)
    assert "self_test" not in network
    run_here("bench", f"{tmp_path}/two.py:uncopied", "--runs", "2", "--input", "3x8x8")
    out = " ".join(capsys.readouterr().out.split())
    assert "eager is faster" in out
    assert "not measured: eager, channels last: TypeError: not twice" in out
    with pytest.raises(FailedError, match="more than --max-ms 0"):
        run_here("bench", f"{tmp_path}/two.py:two", *["--runs", "1", "--opponents", "none", "--max-ms", "0"])
    with pytest.raises(BadInputError, match="cannot take --batch 2: RuntimeError"):
        run_here("bench", f"{tmp_path}/two.py:One", "--input", "3x8x8", "--batch", "2")


Captured = pytest.CaptureFixture[str]


def said_by(capsys: Captured) -> tuple[str, str]:
    """What is on stdout and stderr, without line breaks."""
    out, err = capsys.readouterr()
    return " ".join(out.split()), " ".join(err.split())


def test_no_format_swallows_what_may_be_wrong(file: Path, capsys: Captured) -> None:
    names = [f"{file}:liar", f"{file}:dense"]
    lines = (
        "net.py:liar: doubt: BinaryConv2d in 0: counts as binary, but",
        "net.py:dense: doubt: convention melius leaves",
    )
    compare(names, input_="8")
    out, err = said_by(capsys)
    assert [(line in out, line in err) for line in lines] == [(True, False)] * 2
    compare(names, input_="8", fmt="csv")
    out, err = said_by(capsys)
    assert [(line in out, line in err) for line in lines] == [(False, True)] * 2
    compare(names, input_="8", fmt="json")
    liar, dense = json.loads(capsys.readouterr().out)["networks"]
    assert any(verdict["doubt"] for verdict in liar["verdicts"])
    assert dense["recognised"] == {"1": "binary: weights and activations take two values"}


def test_names_of_a_file_with_many_are_listed_in_part(tmp_path: Path) -> None:
    made = "\n".join(f"def net_{number:02}(): return nn.Identity()" for number in range(23))
    (tmp_path / "many.py").write_text(f"from torch import nn\n{made}\n")
    with pytest.raises(BadInputError, match="unknown network 'zzz'") as caught:
        load_module(f"{tmp_path}/many.py:zzz")
    hint = caught.value.hint or ""
    assert hint.startswith("known: net_00, net_01, ")
    assert hint.endswith("net_19 and 3 more")


def test_a_batch_that_was_counted_is_shown_and_doubted() -> None:
    convolution = nn.Conv2d(3, 4, 1)
    one = count_own(convolution, Example(given=(torch.randn(1, 3, 8, 8),)))
    two = count_own(convolution, Example(given=(torch.randn(2, 3, 8, 8),)))
    assert (one.input_shape, one.count.total.float_macs, one.verdicts) == (SHAPE, 768, ())
    assert (two.input_shape, two.count.total.float_macs) == ((2, *SHAPE), 1536)
    assert says(two) == "batch : a batch of 2 images was counted (2x3x8x8): give one for the cost of one"
    assert [verdict.doubt for verdict in two.verdicts] == [True]
    typed = count_own(convolution, Example.parse(["float32:2x3x8x8"]))
    assert says(typed) == says(two)
    assert count_own(nn.Linear(8, 4), Example(given=(torch.randn(5, 8),))).input_shape == (5, 8)


def test_macs_that_the_convention_leaves_out_are_said(file: Path, capsys: Captured) -> None:
    line = "convention melius leaves out linear layers, 100.0 % of the MACs here: --convention full"
    count(f"{file}:dense", input_="8", max_ops="192")
    assert line in said_by(capsys)[0]
    count(f"{file}:dense", input_="8", fmt="json")
    out, err = capsys.readouterr()
    assert json.loads(out)["doubts"] == [f"doubt: {line} counts them"]
    assert line in " ".join(err.split())
    with pytest.raises(FailedError, match=r"192 OPs .* leaves out, are more than --max-ops 191"):
        count(f"{file}:dense", input_="8", max_ops="191")
    capsys.readouterr()
    with pytest.raises(FailedError, match="are more than --max-ops"):
        count(f"{file}:dense", input_="8", max_ops="1", convention="full")
    assert "leaves out" not in said_by(capsys)[0]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["net.py:Exit", "--format", "json"], 2, "ends the program"),
        (["net.py:raises"], 2, "raises ValueError"),
        (["net.py:needs"], 2, "needs arguments (width)"),
        (["net.py:nothing"], 2, "returns no torch.nn.Module"),
        (["net.py:torn"], 2, "cannot take an input of 3x224x224"),
        (["net.py:greedy"], 3, "too little memory"),
        (["net.py"], 2, "which network of this file?"),
        (["none.py:make_net"], 2, "no such file"),
        (["net.py:make_net", "--binary", "layer*"], 2, "no module of the network has such a name"),
        (["net.py:make_net", "--set", "x=1"], 2, "--set changes the field of a spec"),
        (["net.py:make_net", "--input", "1x28x28"], 2, "cannot take an input of 1x28x28"),
        (["net.py:make_net", "--max-ops", "10"], 1, "are more than --max-ops"),
    ],
)
def test_what_goes_wrong_is_said_in_a_line(file: Path, cli: Cli, args: list[str], code: int, says: str) -> None:
    done = cli("count", "--arch", *args)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
