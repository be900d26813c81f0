"""Factor transfer, the teacher's side: an autoencoder of its feature, whose code is what the student learns."""

import torch
from torch import Tensor, nn

from fxkd.connectors._checks import check_choice, check_counts, check_flags, check_init_cfg, check_map
from fxkd.connectors._factor import decoder, encoder
from fxkd.registry import connector


@connector("Paraphraser")
class Paraphraser(nn.Module):
    """Reconstruct the teacher's feature (stage one), or give the factor that does so (stage two).

    ::

        output = decoder(encoder(feature))  # phase "pretrain"
        output = encoder(feature)           # phase "train", without gradients

    The encoder is three 3x3 convolutions with biases, each with a LeakyReLU of slope 0.1, in_channel to in_channel to
    out_channel to out_channel; the decoder mirrors it with transposed ones. Stage two is a second distillation whose
    paraphraser gets the ``state_dict()`` of the first's: both phases have the same one.

    Args:
        in_channel: Channels of the feature.
        out_channel: Channels of the factor.
        phase: ``"pretrain"`` trains both parts to reconstruct; ``"train"`` gives the factor and trains nothing.
        use_bn: Whether each convolution is followed by a batch normalisation.
        init_cfg: Only None; weights can be changed after building.

    The convolutions lie under ``encoder.0``, ``encoder.3``, ``encoder.6`` and likewise ``decoder``, normalisations one
    further. In phase ``"train"`` the parameters do not require gradients.

    Shape:
        (N, in_channel, H, W) to the same in phase ``"pretrain"``, to (N, out_channel, H, W) in phase ``"train"``.

    Raises:
        SpecError: An option has a value it cannot have, or the feature does not fit.

    From "Paraphrasing Complex Network: Network Compression via Factor Transfer", arXiv 1802.04977.

    >>> feature = torch.zeros(2, 64, 8, 8)
    >>> Paraphraser(64, 32)(feature).shape
    torch.Size([2, 64, 8, 8])
    >>> Paraphraser(64, 32, phase="train")(feature).shape
    torch.Size([2, 32, 8, 8])
    """

    def __init__(
        self, in_channel: int, out_channel: int, phase: str = "pretrain", use_bn: bool = False, init_cfg: None = None
    ) -> None:
        super().__init__()
        check_counts(self, in_channel=in_channel, out_channel=out_channel)
        check_choice(self, "phase", phase, ("pretrain", "train"))
        check_flags(self, use_bn=use_bn)
        check_init_cfg(self, init_cfg)
        self.in_channel = in_channel
        self.phase = phase
        self.encoder = encoder(in_channel, out_channel, use_bn)
        self.decoder = decoder(out_channel, in_channel, use_bn)
        self.requires_grad_(phase == "pretrain")

    def forward(self, feature: Tensor) -> Tensor:
        check_map(self, feature, "in_channel", self.in_channel)
        if self.phase == "train":
            with torch.no_grad():
                factor: Tensor = self.encoder(feature)
                return factor
        output: Tensor = self.decoder(self.encoder(feature))
        return output
