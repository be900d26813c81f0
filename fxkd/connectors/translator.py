"""Factor transfer, the student's side: its feature made comparable to the teacher's factor."""

from torch import Tensor, nn

from fxkd.connectors._checks import check_counts, check_flags, check_init_cfg, check_map
from fxkd.connectors._factor import encoder
from fxkd.registry import connector


@connector("Translator")
class Translator(nn.Module):
    """Make a factor of the student's feature, as the ``Paraphraser`` makes one of the teacher's.

    ::

        output = encoder(feature)

    The encoder is three 3x3 convolutions with biases, each with a batch normalisation and a LeakyReLU of slope 0.1,
    in_channel to in_channel to out_channel to out_channel.

    Args:
        in_channel: Channels of the feature.
        out_channel: Channels of the factor: those of the teacher's.
        use_bn: Whether each convolution is followed by a batch normalisation.
        init_cfg: Only None; weights can be changed after building.

    The convolutions lie under ``encoder.0``, ``encoder.3`` and ``encoder.6``, normalisations one further.

    Shape:
        (N, in_channel, H, W) to (N, out_channel, H, W).

    Raises:
        SpecError: An option has a value it cannot have, or the feature does not fit.

    From "Paraphrasing Complex Network: Network Compression via Factor Transfer", arXiv 1802.04977.

    >>> import torch
    >>> Translator(16, 32)(torch.zeros(2, 16, 8, 8)).shape
    torch.Size([2, 32, 8, 8])
    """

    def __init__(self, in_channel: int, out_channel: int, use_bn: bool = True, init_cfg: None = None) -> None:
        super().__init__()
        check_counts(self, in_channel=in_channel, out_channel=out_channel)
        check_flags(self, use_bn=use_bn)
        check_init_cfg(self, init_cfg)
        self.in_channel = in_channel
        self.encoder = encoder(in_channel, out_channel, use_bn)

    def forward(self, feature: Tensor) -> Tensor:
        check_map(self, feature, "in_channel", self.in_channel)
        factor: Tensor = self.encoder(feature)
        return factor
