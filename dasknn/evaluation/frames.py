"""A dataframe that prints all of its columns, however many there are."""

from __future__ import annotations

import pandas as pd


class WholeFrame(pd.DataFrame):
    """A pandas dataframe whose columns are all printed, some below the others where they do not fit."""

    @property
    def _constructor(self) -> type[WholeFrame]:
        return WholeFrame

    def __repr__(self) -> str:
        with pd.option_context("display.max_columns", None, "display.expand_frame_repr", True):
            return super().__repr__()

    def _repr_html_(self) -> str | None:
        with pd.option_context("display.max_columns", None):
            return super()._repr_html_()
