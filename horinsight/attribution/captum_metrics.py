"""captum's infidelity and largest sensitivity, with settings and units said, beside what a map of zeros scores."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from horinsight.attribution.faithfulness_options import Spread
from horinsight.attribution.map_cells import spread_maps
from horinsight.attribution.map_comparison_results import CaptumScores
from horinsight.attribution.method_calls import Method, called
from horinsight.attribution.perturbation_curves import Score, probability
from horinsight.capture import check_batch, evaluation, run
from horinsight.data.picture_batches import PictureBatch, tensor_stream
from horinsight.data.picture_stream import PictureStream
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.options import check_fields, option

Unit = Literal["gradient", "multiplied"]


@dataclass(frozen=True, kw_only=True)
class CaptumSettings:
    """How captum's two numbers are taken.

    Attributes:
        square: side, in pixels, of the squares that infidelity takes away.
        num_squares: places of a square, drawn for each picture.
        radius: of the cube that sensitivity's δ is drawn from, in the values that the model takes.
        num_draws: of δ for each picture; 0 leaves sensitivity out, since each draw makes all maps anew.
        spread: how coarser maps are spread over the picture.
        seed: of places and δ.
        batch_size: perturbed pictures in one pass.
    """

    square: int = option(8, "Side of the squares of infidelity.", least=1)
    num_squares: int = option(64, "Squares for each picture.", least=1)
    radius: float = option(0.02, "Of what is added for sensitivity.", above=0)
    num_draws: int = option(10, "Draws for sensitivity.", least=0)
    spread: Spread = option("nearest", "How coarser maps are spread over the picture.")
    seed: int = option(0, "Of squares and draws.", least=0)
    batch_size: int = option(64, "Perturbed pictures in one pass.", least=1, changes_result=False)

    def __post_init__(self) -> None:
        check_fields(self)


def captum_scores(
    model: nn.Module,
    images: Tensor | PictureStream,
    targets: Tensor,
    methods: Mapping[str, tuple[Method, Unit]],
    *,
    reference: Tensor,
    score: Score = probability,
    settings: CaptumSettings | None = None,
    on_picture: Callable[[int], None] | None = None,
) -> CaptumScores:
    """Infidelity (Yeh et al. 2019) and largest sensitivity of maps, as captum computes them.

    infidelity = E[(I · φ - (f(x) - f(x - I)))²], where I = x - reference within a square at a random place and 0
    elsewhere, so that x - I has the reference there. φ is a gradient-like map. A "multiplied" map, φ · (x - reference)
    as integrated gradients, DeepLift or input x gradient give it, is divided by x - reference first (0 where it is 0).
    A map has no channels: it is taken for the sum over channels, of which each has an equal part.

    Args:
        model: a classifier; left as it was.
        images: (B, C, H, W), prepared as the model expects them, or a stream of pictures (`picture_stream`).
        targets: (B,), the class that is explained.
        methods: name → (method, unit): "gradient" or "multiplied". Methods are those of `faithfulness`; they are given
            one picture, and up to `batch_size` versions of it for sensitivity.
        reference: (C, H, W) or (C, 1, 1), what squares are replaced by and multiplied maps were measured from.
        score: f, from logits and targets; the probability when nobody says.
        settings: sizes, radius, seed; the defaults when None.
        on_picture: called with the number of each picture when it is done.

    Raises:
        ValueError: a unit that does not exist, a map that does not fit, squares larger than the picture.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
        >>> found = captum_scores(
        ...     model, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), {"x": (lambda x, t: x.sum(1), "gradient")},
        ...     reference=torch.zeros(3, 1, 1), settings=CaptumSettings(square=2, num_squares=4, num_draws=2))
        >>> bool((found.scaled <= found.zero_infidelities * (1 + 1e-5)).all())
        True
    """
    settings = settings or CaptumSettings()
    batches: Iterable[PictureBatch]
    names: Sequence[str]
    if isinstance(images, PictureStream):
        side, batches, names = min(images.image_size), images, images.names
    else:
        check_batch(images)
        side, names = min(images.shape[2:]), picture_names(images)
        batches = tensor_stream(images, ("",) * len(images))
    if settings.square > side:
        raise ValueError(f"captum_scores expects squares of at most {side} pixels, got {settings.square}.")
    for name, (_, unit) in methods.items():
        if unit not in get_args(Unit):
            raise ValueError(f"The unit of {name!r} is expected as 'gradient' or 'multiplied', got {unit!r}.")
    rows = []
    for batch in batches:
        for index, image in enumerate(batch.images, batch.start):
            with torch.inference_mode(False), evaluation(model):
                picture = _Picture(model, score, settings, image[None].detach(), targets[index : index + 1], index)
                zeros, _ = picture.infidelity_of(torch.zeros_like(picture.image), reference)
                found = [picture.scores(name, method, unit, reference) for name, (method, unit) in methods.items()]
            rows.append([(zeros, zeros, 0.0), *found])
            if on_picture is not None:
                on_picture(index)
        del batch  # before the next one is made
    table = np.array(rows, dtype=np.float64).transpose(2, 1, 0)  # quantity, map, picture
    return CaptumScores(
        methods=tuple(methods),
        units=tuple(unit for _, unit in methods.values()),
        infidelities=table[0, 1:],
        scaled=table[1, 1:],
        zero_infidelities=table[0, 0],
        sensitivities=table[2, 1:],
        settings={key: float(getattr(settings, key)) for key in ("square", "num_squares", "radius", "num_draws")},
        seed=settings.seed,
        convention={
            "infidelity": "E[(I . map - (f(x) - f(x - I)))^2], I = x - reference within a square at a random place",
            "unit": "multiplied maps are divided by x - reference first, 0 where it is 0",
            "channels": "a map is the sum over channels, each has an equal part",
            "scaled": "captum's normalize=True: each picture's map times the number that makes it least",
            "sensitivity": "largest |map(x + d) - map(x)| / |map(x)| over draws of d, uniform within the radius",
            "score": "probability (softmax) of the target"
            if score is probability
            else getattr(score, "__name__", "given"),
            "interval": "95 % for images like these: Student's over pictures",
        },
        provenance=model_provenance(model, image_names=names, seed=settings.seed),
    )


@dataclass(frozen=True)
class _Picture:
    """One picture, (1, C, H, W)."""

    model: nn.Module
    score: Score
    settings: CaptumSettings
    image: Tensor
    target: Tensor
    index: int

    def scores(self, name: str, method: Method, unit: Unit, reference: Tensor) -> tuple[float, float, float]:
        """infidelity, the same at its best scale, sensitivity."""
        attribution = self.map_of(name, method, self.image, self.target)[:, None].expand_as(self.image)
        attribution = attribution / self.image.shape[1]
        if unit == "multiplied":
            away = self.image - reference.to(self.image)
            attribution = torch.where(away == 0, 0, attribution / torch.where(away == 0, 1, away))
        return (*self.infidelity_of(attribution, reference), self.sensitivity_of(name, method))

    def map_of(self, name: str, method: Method, images: Tensor, targets: Tensor) -> Tensor:
        """(n, H, W)."""
        maps = called(method, images, targets, name=name, seeds=[self.settings.seed, self.index])
        return spread_maps(maps, (images.shape[2], images.shape[3]), self.settings.spread)

    def infidelity_of(self, attribution: Tensor, reference: Tensor) -> tuple[float, float]:
        """captum's infidelity, as it is and at the best scale."""

        def forward(x: Tensor) -> Tensor:
            return self.score(run(self.model, x), self.target.expand(len(x)))

        found = []
        for normalize in (False, True):
            squares = self.squares()  # the same for both

            def perturb(x: Tensor, squares: Iterator[Tensor] = squares) -> tuple[Tensor, Tensor]:
                inside = torch.stack([next(squares) for _ in range(len(x))])[:, None]
                taken = torch.where(inside, x - reference.to(x), 0)
                return taken, x - taken

            value = infidelity(
                forward,
                perturb,
                self.image,
                attribution,
                n_perturb_samples=self.settings.num_squares,
                max_examples_per_batch=min(self.settings.batch_size, self.settings.num_squares),
                normalize=normalize,
            )
            found.append(float(value))
        return found[0], found[1]

    def squares(self) -> Iterator[Tensor]:
        """(H, W) masks, each place of a square that lies within the picture as likely as any other."""
        generator = np.random.default_rng([self.settings.seed, self.index])
        H, W = self.image.shape[2:]
        side = self.settings.square
        while True:
            row, col = (int(generator.integers(size - side + 1)) for size in (H, W))
            inside = torch.zeros(H, W, dtype=torch.bool, device=self.image.device)
            inside[row : row + side, col : col + side] = True
            yield inside

    def sensitivity_of(self, name: str, method: Method) -> float:
        """captum's largest sensitivity: it hands a tuple to what explains first, then a tensor."""
        if not self.settings.num_draws:
            return float("nan")
        generator = torch.Generator().manual_seed(
            int(np.random.default_rng([self.settings.seed, self.index, 1]).integers(2**63))
        )

        def explained(x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            pictures = x[0] if isinstance(x, tuple) else x
            return (self.map_of(name, method, pictures, self.target.expand(len(pictures))),)

        def perturb(x: Any, radius: float) -> Tensor:
            pictures = x[0] if isinstance(x, tuple) else x
            noise = torch.rand(pictures.shape, generator=generator, dtype=torch.float64, device="cpu") * 2 - 1
            moved: Tensor = pictures + radius * noise.to(pictures)
            return moved

        found = sensitivity_max(
            explained,
            self.image,
            perturb_func=perturb,
            perturb_radius=self.settings.radius,
            n_perturb_samples=self.settings.num_draws,
            max_examples_per_batch=min(self.settings.batch_size, self.settings.num_draws),
        )
        return float(found)
