"""Operations whose input gradients are cheap to differentiate again."""

from guard_plugin.penalties.fast.second_order.mode import SecondOrder

__all__ = ["SecondOrder"]
