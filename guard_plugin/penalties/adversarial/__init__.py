"""Training on adversarial examples: in place of the host's loss, or beside it."""

from guard_plugin.penalties.adversarial.trades import Trades
from guard_plugin.penalties.adversarial.training import FastTraining, PgdTraining

__all__ = ["WHY_NOT_FREE", "FastTraining", "PgdTraining", "Trades"]

WHY_NOT_FREE = (
    "penalty 'free': free adversarial training (Shafahi et al., NeurIPS 2019) updates the network several times on "
    "each batch, with the host's own optimiser, which a loss in an unmodified host cannot do: use 'fast' (Wong et al., "
    "ICLR 2020), which the same comparison is about, or 'pgd_at'"
)
