"""What the finder missed and what it named wrongly, by experiment: one position of an input is changed."""

import torch
from perturbed_positions import awakened, called, mixes
from torch import nn

from horinsight.mixers.found import found_mixers
from horinsight.mixers.watch import watched


def within(path: str, container: str) -> bool:
    return container == "" or path == container or path.startswith(f"{container}.")


def missed_and_wrong(model: nn.Module, images: torch.Tensor) -> tuple[list[str], list[str], int]:
    """Innermost modules that mix by experiment and lie in no mixer; mixers that do not mix by experiment; how many do.

    Labels are used for one thing: along which axes of which input positions lie. Norms over positions are left out. A
    module around a mixer of which the experiment cannot tell (its map changes size) is innermost by no fault of it.
    """
    model = awakened(model)
    paths = {mixer.path for mixer in found_mixers(model, images=images)}
    seen = {call.path: call for call in reversed(list(watched(model, images)[0].walk())) if call.input is not None}
    told = {}
    for path, module, call in called(model, images):
        if path not in seen or {event.what for event in seen[path].inside()} == {"norm"}:
            continue
        number = next(i for i, labels in enumerate(seen[path].inputs) if labels is seen[path].input)
        axes = seen[path].input.axes()
        if len(axes) <= 2 and "Norm" not in type(module).__name__:
            told[path] = mixes(module, call, axes, number=number)
    positive = [path for path, answer in told.items() if answer]
    innermost = [path for path in positive if not any(other != path and within(other, path) for other in positive)]
    untold = [path for path in paths if told.get(path) is None]
    missed = [
        path
        for path in innermost
        if not any(within(path, mixer) for mixer in paths) and not any(within(mixer, path) for mixer in untold)
    ]
    wrong = [path for path in paths if told.get(path) is False]
    return missed, wrong, len(paths & set(positive))
