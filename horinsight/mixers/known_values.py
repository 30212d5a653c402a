"""What the tensors that meet are, by what is known of them: values or masks, spectra, factors of a gate."""

from torch import Tensor

from horinsight.mixers.call_tree import ModuleCall
from horinsight.mixers.tensor_knowledge import Known


def is_a_value(tensor: Tensor) -> bool:
    """Whether a tensor has values that answer to others continuously: masks and indices do not."""
    return tensor.is_floating_point() or tensor.is_complex() or tensor.is_quantized


def is_a_spectrum(known: Known) -> bool:
    """Whether a tensor stands for all positions because a Fourier transform joined them."""
    return known.waits == "fft" and not known.labels.has_cells()


def is_gated(call: ModuleCall, several: list[Known]) -> bool:
    """Whether a product in a module's own forward is of what a mixer inside it made: a gate.

    A function of a single position times another function of the same tensor is an activation.
    """
    if len(several) < 2 or len({known.source for known in several}) == 1:
        return False
    inside = [known.last > call.start for known in several]
    if not any(inside) or not all(known.labels.has_cells() for known in several):
        return False
    return not all(inside) or any(known.branch > call.start for known in several)
