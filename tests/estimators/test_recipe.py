"""The rules of the recipe: what follows the size of a table, and in which direction."""

from itertools import pairwise

import pytest

from dasknn.estimators.recipe import recipe_for
from dasknn.estimators.tabular import embedding_width

ROWS = [2, 10, 63, 64, 100, 1_000, 1_279, 1_280, 10_000, 49_999, 50_000, 200_000, 10**6, 10**8]


@pytest.mark.parametrize("n_numbers", [0, 1, 100, 101, 10_000])
def test_larger_tables_get_larger_batches_and_no_more_members(n_numbers):
    recipes = [recipe_for(n_rows, n_numbers, n_numbers) for n_rows in ROWS]
    for smaller, larger in pairwise(recipes):
        assert smaller.batch_size <= larger.batch_size
        assert smaller.members >= larger.members
        assert smaller.epochs >= larger.epochs
        assert smaller.dropout >= larger.dropout
        assert smaller.weight_decay >= larger.weight_decay


@pytest.mark.parametrize("n_rows", ROWS)
def test_a_batch_is_no_larger_than_the_table(n_rows):
    recipe = recipe_for(n_rows, 5, 9)
    assert 1 <= recipe.batch_size <= n_rows
    assert min(recipe.members, recipe.epochs, *recipe.hidden) >= 1
    assert 0 <= recipe.dropout < 1


def test_wider_tables_get_no_more_members():
    members = [recipe_for(30_000, 0, n_columns).members for n_columns in (1, 100, 200, 1_000, 10_000)]
    assert members == sorted(members, reverse=True)
    assert members[-1] == 1


def test_numbers_are_embedded_unless_there_are_very_many():
    embeds = [recipe_for(1_000, n_numbers, n_numbers).embeds for n_numbers in range(0, 1_000, 10)]
    assert embeds[0]
    assert not embeds[-1]
    assert embeds == sorted(embeds, reverse=True)


def test_more_codes_get_vectors_that_are_no_shorter():
    widths = [embedding_width(size) for size in (2, 10, 100, 1_000, 10_000, 10**6, 10**9)]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (8, 32)
