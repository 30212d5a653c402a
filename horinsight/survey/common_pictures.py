"""What two surveys have in common: the same list of pictures, as far as both are finished, compared picture by picture.

Whether two lists are the same is said by their fingerprint, names and classes in their order: files of one name in two
folders are not taken for one picture.
"""

import math
import os
from dataclasses import dataclass

import numpy as np

from horinsight.survey.part_files import finished_parts
from horinsight.survey.quantity_values import QuantityValues
from horinsight.survey.survey_manifest import SurveyManifest

Parts = list[list[int]]
LEAST = 2  # pictures, of which differences have a spread


@dataclass(frozen=True)
class TwoSurveys:
    """Two surveys of one question.

    Attributes:
        folders: of both.
        manifests: of both.
    """

    folders: tuple[str | os.PathLike[str], str | os.PathLike[str]]
    manifests: tuple[SurveyManifest, SurveyManifest]

    @property
    def same_list(self) -> bool:
        """Whether both are of the same pictures."""
        one, other = self.manifests
        return (one.num_pictures, one.pictures_sha256) == (other.num_pictures, other.pictures_sha256)

    def rows(self, one: QuantityValues, other: QuantityValues) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows of the pictures that both have, in one order; None where lists differ, or fewer than two are common."""
        if not self.same_list:
            return None
        _, first, second = np.intersect1d(one.images.astype(str), other.images.astype(str), return_indices=True)
        return (first, second) if len(first) >= LEAST else None

    def parts(self) -> tuple[Parts, Parts] | None:
        """Finished parts of each in groups that hold the same pictures; None where lists differ.

        Where parts are of different sizes, groups are of the least number of pictures that parts of both make up.
        """
        if not self.same_list:
            return None
        sizes = [manifest.part_size for manifest in self.manifests]
        together = math.lcm(*sizes)
        groups: tuple[dict[int, list[int]], dict[int, list[int]]] = ({}, {})
        for kept, folder, manifest in zip(groups, self.folders, self.manifests, strict=True):
            there = set(finished_parts(folder))
            each = together // manifest.part_size
            for group in range(-(-manifest.num_parts // each)):
                members = range(group * each, min((group + 1) * each, manifest.num_parts))
                if there.issuperset(members):
                    kept[group] = list(members)
        common = [group for group in groups[0] if group in groups[1]]
        return [groups[0][group] for group in common], [groups[1][group] for group in common]
