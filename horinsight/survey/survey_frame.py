"""The rows of a survey as a data frame, also while it runs."""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from horinsight.survey.part_files import SCHEMA, TEXT, finished_parts, part_path
from horinsight.survey.survey_manifest import read_manifest

if TYPE_CHECKING:
    import pandas

_PLAIN = {TEXT: pyarrow.string()}


def load_survey(
    folder: str | os.PathLike[str],
    *,
    quantities: Sequence[str] | None = None,
    blocks: Sequence[int] | None = None,
) -> "pandas.DataFrame":
    """The rows of all finished parts: one for each picture, block, quantity and k, in the order of the list.

    The columns are "image", "class", "block", "name", "quantity", "k", "value" and "error" (`COLUMNS` says what each
    is, as does the survey's manifest); `block` and `k` are missing where they do not apply. A picture that could not be
    read has one row, whose quantity is "error"; so has a block that could not be measured on a picture.

    Args:
        folder: of the survey, finished or not.
        quantities: only these; of a million pictures there are hundreds of millions of rows.
        blocks: only these, by their index.

    Raises:
        ValueError: the folder holds no survey.
    """
    import pandas

    tables = list(part_tables(folder, quantities=quantities, blocks=blocks))
    table = pyarrow.concat_tables(tables or [SCHEMA.empty_table()]).unify_dictionaries()
    table = table.cast(pyarrow.schema([(field.name, _PLAIN.get(field.type, field.type)) for field in SCHEMA]))
    frame: pandas.DataFrame = table.to_pandas(types_mapper={pyarrow.int32(): pandas.Int32Dtype()}.get)
    return frame


def part_tables(
    folder: str | os.PathLike[str], *, quantities: Sequence[str] | None = None, blocks: Sequence[int] | None = None
) -> Iterator[pyarrow.Table]:
    """The rows of one finished part after the other, see `load_survey`."""
    read_manifest(folder)
    for number in finished_parts(folder):
        table = pyarrow.parquet.read_table(part_path(folder, number), schema=SCHEMA)
        for name, wanted in (("quantity", quantities), ("block", blocks)):
            if wanted is not None:
                values = pyarrow.array(wanted, pyarrow.string() if name == "quantity" else pyarrow.int32())
                column = table.column(name)
                column = column.cast(pyarrow.string()) if name == "quantity" else column
                table = table.filter(pyarrow.compute.is_in(column, values))
        yield table
