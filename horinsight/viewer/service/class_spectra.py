"""Orders and interaction effects by class: each picture as a survey measures it; kept for everybody."""

from collections import Counter
from dataclasses import dataclass, replace

from horinsight.data.images import load_image
from horinsight.data.preprocess import image_batch
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.mixers.blocks import chosen_blocks
from horinsight.results import Provenance
from horinsight.survey.effects_by_picture import EffectsAsked
from horinsight.survey.picture_rows import ERROR, PictureRow, picture_seed
from horinsight.survey.quantity_values import values_of_rows
from horinsight.survey.survey_estimates import CONVENTION, lines_by_group, quantities_of
from horinsight.survey.survey_results import SurveyTable
from horinsight.viewer.service.block_spectra import memory
from horinsight.viewer.service.class_means import ClassAsked, Step
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.kept import Kept
from horinsight.viewer.service.model_pool import shared_model

QUESTION = "ie"
KEPT = 200  # classes, of some thousand numbers each


@dataclass(frozen=True, eq=False)
class ClassEffects:
    """What `horinsight survey ie` writes of each picture of a class.

    Attributes:
        images: names of the pictures, below the folder of all classes.
        rows: of each.
        unreadable: name of a picture → why it is left out.
    """

    images: tuple[str, ...]
    rows: tuple[tuple[PictureRow, ...], ...]
    unreadable: dict[str, str]


CLASS_EFFECTS: Kept[ClassAsked, ClassEffects] = Kept(KEPT)


def class_effects(asked: ClassAsked, step: Step) -> ClassEffects:
    """Measure a class picture by picture, each through the gate, or take what is known.

    Each picture has a survey's draws: the numbers are those that `horinsight survey ie` writes for the same folder.

    Args:
        asked: which pictures, model and blocks.
        step: is told how many pictures are done.

    Raises:
        ValueError: no picture can be read.
        BusyError: the gate was taken for too long.
    """
    known = CLASS_EFFECTS.get(asked)
    if known is not None:
        return known
    question = EffectsAsked(blocks=asked.blocks)
    rows: dict[str, tuple[PictureRow, ...]] = {}
    unreadable: dict[str, str] = {}
    shared = shared_model(asked.key)
    for place, path in enumerate(asked.files):
        step(place)
        name = f"{path.parent.name}/{path.name}"
        try:
            image = load_image(path)
        except (ValueError, OSError) as error:
            unreadable[path.name] = str(error).replace(str(path), path.name)
            continue
        with GATE.long_slot() as slot:
            model = shared.replicas[slot]
            within = replace(question, options=replace(question.options, memory=memory()))
            blocks = chosen_blocks(model, asked.blocks)
            batch, seed = image_batch(model, [image]), picture_seed(question.seed, name)
            rows[name] = tuple(within.measured(model, batch, blocks, seed).rows)
    if not rows:
        raise ValueError(f"None of its pictures can be read: {next(iter(unreadable.values()), 'no picture')}")
    found = ClassEffects(tuple(rows), tuple(rows.values()), unreadable)
    CLASS_EFFECTS.put(asked, found)
    return found


def effects_table(found: dict[str, ClassEffects], origin: Provenance) -> SurveyTable:
    """Orders and effects by class, as the report of a survey has them.

    Args:
        found: class → what its pictures gave.
        origin: of the model.
    """
    images = [name for one in found.values() for name in one.images]
    labels = [label for label, one in found.items() for _ in one.images]
    rows = [mine for one in found.values() for mine in one.rows]
    unreadable = {name: why for one in found.values() for name, why in one.unreadable.items()}
    values = values_of_rows(images, labels, rows, quantities_of(QUESTION))
    return SurveyTable(
        question=QUESTION,
        model=origin.model,
        weights=origin.weights,
        trained=origin.trained,
        lines=tuple(lines_by_group(QUESTION, [values], list(found))),
        num_pictures=len(images),
        num_listed=len(images) + len(unreadable),
        unreadable=unreadable,
        num_unreadable=len(unreadable),
        refused=dict(Counter(row.error or "" for mine in rows for row in mine if row.quantity == ERROR)),
        convention={
            name: words for name, words in CONVENTION.items() if name in ("intervals", "effect", "order_at_least")
        }
        | {"draws": f"{EffectsAsked(SpectrumOptions()).options.num_tuples} chains a picture and block"},
    )
