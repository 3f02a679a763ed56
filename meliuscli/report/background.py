"""The pages of ``meliuscli explain`` that are prose alone: what is believed, proxied and packed."""

from __future__ import annotations

from meliuscli.report.prose import Part, prose


def beliefs() -> tuple[Part, ...]:
    from meliuscli.evidence.belief import sentence  # loads numpy

    said = sentence()
    return prose(
        f"""A belief is a forecast of what one training on ImageNet would reach, in percent, with an interval. It is not a
        training. {said[0].upper()}{said[1:]}.""",
        """The evidence is data of the project (meliuscli/evidence/runs.csv): the last epochs of the 17 comparable ImageNet
        runs of MeliusNet's authors, with one recipe and one seed each. They are ResNetE-18 and -34, BinaryDenseNet-28 and
        -37, and seven MeliusNets, some with two stems. The model is a Gaussian process on what is known for nothing:
        binary and float MACs, params, the family, and the shape of the network. Its error is measured by leaving out a
        whole topology at a time, with both its stems, and forecasting it from the others.""",
        """Where a belief ends. The error is that among networks like the 17. Outside the range of the runs of its family with its
        stem (in costs, resolution, widths, the stem, or the stages' shares of the work) the interval of a network grows by a
        judgement, 1.5 points for each unit of distance. No training on ImageNet can check it; five networks of earlier
        searches, 2 to 3.5 units outside, did 2 to 6 points worse on CIFAR-10 than they were believed to, beside the
        published ones. `meliuscli predict` names the numbers in which a network lies outside, and tables mark it with
        *. No belief is given where the standard deviation is above 3
        points, for other families, for inputs other than 3x224x224, or for other than 1000 classes.""",
        """A search maximises the lower end of the interval, not its mean. It finds the places where a model is too hopeful,
        and those are where the model knows least. The probability that a found network is better than a published one is
        a range, because priors that the 17 runs do not rule out disagree. The interval is that of the likeliest prior; that
        of another is up to twice as wide, so which of two networks of nearly equal lower ends is preferred says little.""",
        """A published network is part of the evidence, so its interval is narrow; the error says how far one that is not is off.
        The range is looked at number by number. Found networks have up to three times the params of a published one of
        equal OPs, each number within its range or near it, and no run says what such a network reaches. Of the MeliusNets,
        MeliusNet59 has the most params per OP. Of 1,500 random networks of the default space, those that have 1.4 times as
        many are all new in other numbers too, and their intervals are 2.9 points or more to either side.""",
    )


def proxies() -> tuple[Part, ...]:
    return prose(
        """A proxy is a short training of a narrowed copy of a network on small images, which ranks candidates. The default
        one has the network's own topology with the thumbnail stem and all widths divided by 8, and trains it for 0.7 epochs
        on 8x8 images of the embedded data. Its accuracy is shown beside the belief and does not move it.""",
        """Whether a proxy ranks as a long training does is measured with `meliuscli check-proxy`: Kendall's tau says how
        often two networks are in the right order (1: always, 0: no better than chance), and tau given OPs says it for
        networks of equal cost, because OPs alone rank networks of very different cost well. The ceiling is the same number
        between two long trainings that differ in their seed only; a proxy, which is judged by the mean of both, can lie above
        it by luck. Regret is how much
        accuracy is lost by taking the network that the proxy prefers.""",
        """What a short training says of ImageNet beyond the free numbers is another question, and `meliuscli check-proxy
        --against published` asks it. None of the proxies that were tried is shown to rank networks of equal OPs and params
        and to lower the error of beliefs, so no proxy moves a belief.""",
        """Where nothing is believed of ImageNet (another family, an input of another size, images of your own), a search
        answers for the proxy's data, and the last line of its answer says so.""",
    )


def packed() -> tuple[Part, ...]:
    return prose(
        """Bit-packed inference stores 64 signs in a machine word. The product of two vectors of signs is then an xor and a
        count of bits (popcount). meliuscli generates these kernels as LLVM IR for the instruction set of the processor at
        hand: AVX-512 with and without VPOPCNTDQ, AVX2, SSE, NEON. No compiler is needed. MeliusNet and BinaryDenseNet run
        whole in them, of the other families the binary convolutions do.""",
        """Batch norm in front of a sign is a comparison with a threshold, so no float is left between two binary
        convolutions of a branch. Before any number is given, every packed layer is held against the torch module, and
        must be equal: sums of signs are whole numbers, and nothing is rounded.""",
        """OPs = FLOPs + BOPs/64 is a theory of cost. `meliuscli bench` measures the divisor that this processor really
        gives. It is below 64, because torch's float convolutions use wide registers too, and because taking signs, packing
        them and the float layers take time that no formula counts.""",
        """Times are medians of runs in turns with the opponents, so that a machine that slows down slows all of them. The
        spread is half the distance between the quartiles. Processor time is given beside wall time: where they differ,
        other programs had the processor.""",
    )


def bfloat16() -> tuple[Part, ...]:
    return prose(
        """bfloat16 has the range of float32 and 8 bits of precision. A sum of signs is exact in it up to 256, and larger
        sums are rounded. With `precision = "auto"` a training takes it where a short measurement says that it is faster;
        weights, statistics, the optimiser and the evaluation stay float32.""",
        """A rounding flips signs of activations that are close to zero. The gradients of a whole network then differ by more
        than half of their norm; they do so in float32 too, when its input alone is rounded like that. Accuracy does not
        tell the two apart where it was measured (docs/results/training.md).""",
    )


def memory() -> tuple[Part, ...]:
    """What a network needs of a device."""
    return prose(
        """A microcontroller has two memories. Flash keeps what never changes, the program and its constants; RAM keeps what a
        program works on. `count` says what a network needs of both, in bytes, of each stage or block and in all.""",
        """RAM here is the maps that are alive at once, at most, while a part of the network runs, with what its layers need
        besides: rows of packed signs, or those rows of the image that a window sees. The C library keeps all of it in one
        array, the arena, which the caller gives it; it allocates nothing. A network needs as much as its largest part, so the
        total of RAM is the largest row, where the total of flash is the sum of the rows. A part with no RAM of its own works
        where another one does. Not in it: the caller's image and logits, and the stack.""",
        """Flash here is the constants: signs of weights in words of 32, thresholds, scales, shifts, and float weights. Not in it:
        the code. It is not the size: a batch norm in front of a sign is one threshold a channel and a word of directions for 32
        of them, not two floats, and signs are rounded up to whole words.""",
        """Exact are both for every network that `export --to c` writes: MeliusNet, BinaryDenseNet, ResNetE, Bi-Real Net, ResNet,
        TFC, SFC, LFC, CNV and VGG-Small. They are made by arithmetic on the layers, and tests hold them to the byte against
        the arena and the tables of the library, block by block, in float32 and with stem and head in int8
        (--float-bits 8).""",
        """An estimate are both for all other families, and for a MeliusNet or BinaryDenseNet with larq-zoo's borders, of which
        there is no library: each layer is taken on its own, in the order of
        the network, and what it reads and writes is there, and what came into its block where the block adds to that or joins
        it. Binary layers read packed signs. `count` says "about", and the JSON has order: layers, not c. --max-ram and
        --max-flash hold estimates too, in `count` as in `search`, and `count` says so where one is above.""",
    )
