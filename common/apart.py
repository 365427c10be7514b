"""What keeps training with privacy from being about one patient at a time."""

from __future__ import annotations

__all__ = ["why_not_apart"]


def why_not_apart(*, batch_norm: bool, dropout: bool, class_weights: bool, full_batch: bool) -> str | None:
    """What lets one patient's images act on another's gradient, or tells how many there are;
    None where nothing does.
    """
    if batch_norm:
        return "privacy cannot be had with model.norm = 'batch', which mixes patients; set it to 'group'"
    if dropout:
        return "model.dropout draws for a whole batch at once; set it to 0 where privacy is asked for"
    if class_weights:
        return "training.class_weights tells how many cases of each class a site has; set it to false"
    if full_batch:
        return "privacy comes from sampling patients; leave training.full_batch out"
    return None
