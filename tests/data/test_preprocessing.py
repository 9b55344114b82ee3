"""Tables become what scikit-learn makes of them, wherever their rows are."""

import decimal
import pickle

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn
from conftest import bits
from distributed import Client
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import get_tags

import dasknn
from dasknn import Input, MLPClassifier, MLPRegressor, Sequential, TablePreprocessor
from dasknn.data.column_kinds import CategorySummary, Numbers, NumberSummary
from dasknn.exceptions import ModelFileError, PartitionError
from dasknn.layers import Dense
from dasknn.saving import safetensors_file

TEXTS = ["job", "region", "member"]
NUMBERS = ["age", "hours", "constant"]


def people(n_rows=400, seed=0):
    """A table as people keep them, and what to learn of it."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(17, 90, n_rows),
            "job": rng.choice(["clerk", "farmer", "pilot", "writer"], n_rows, p=[0.5, 0.3, 0.19, 0.01]),
            "hours": np.where(rng.random(n_rows) < 0.1, np.nan, rng.normal(1e6, 3, n_rows)),
            "member": rng.random(n_rows) < 0.4,
            "region": pd.Categorical(rng.choice(["north", "south"], n_rows), ["south", "north", "unused"]),
            "constant": 0.1,
        }
    )
    # Before pandas 3, None would stay None here, and give its name to scikit-learn's column.
    frame.loc[rng.random(n_rows) < 0.1, "job"] = np.nan
    label = np.where((frame["age"] > 50) ^ (frame["job"] == "clerk"), "yes", "no")
    return frame, pd.Series(label, name="label")


def by_scikit_learn(frame, texts=TEXTS, numbers=NUMBERS):
    """What scikit-learn makes of the same table, in the order of its own columns."""
    fill = SimpleImputer(strategy="constant", fill_value=0.0, add_indicator=True)
    transformer = ColumnTransformer(
        [
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
            ("numbers", make_pipeline(StandardScaler(), fill), numbers),
        ],
        verbose_feature_names_out=False,
    )
    return transformer.set_output(transform="pandas").fit(frame)


@pytest.fixture
def table():
    return people()[0]


@pytest.fixture
def pipeline():
    model = MLPClassifier((8,), max_iter=15, learning_rate_init=0.01, batch_size=40, random_state=0)
    return Pipeline([("table", TablePreprocessor()), ("mlp", model)])


# --- the same numbers as scikit-learn ----------------------------------------------------------------


@pytest.mark.parametrize("n_partitions", [0, 1, 5])
def test_the_columns_are_those_of_a_column_transformer_fitted_to_the_whole(table, n_partitions):
    X = dd.from_pandas(table, npartitions=n_partitions, sort=False) if n_partitions else table
    prepared = TablePreprocessor(dtype="float64").fit(X)
    found = prepared.transform(X)
    found = found.compute() if n_partitions else found
    expected = by_scikit_learn(table).transform(table)
    assert sorted(found.columns) == sorted(expected.columns)
    assert_allclose(found[expected.columns], expected, rtol=1e-9, atol=1e-9)
    assert_array_equal(found.index, table.index)


def test_columns_keep_the_order_of_the_table_and_are_float32(table):
    prepared = TablePreprocessor().fit(table)
    found = prepared.transform(table)
    jobs = ["job_clerk", "job_farmer", "job_pilot", "job_writer", "job_nan"]
    names = ["age", *jobs, "hours", "missingindicator_hours", "member_False", "member_True"]
    assert list(found.columns) == [*names, "region_north", "region_south", "constant"]
    assert list(prepared.get_feature_names_out()) == list(found.columns)
    assert set(found.dtypes) == {np.dtype("float32")}


def test_rare_values_share_a_column_as_in_scikit_learn(table):
    encoder = OneHotEncoder(handle_unknown="ignore", min_frequency=10, sparse_output=False)
    expected = encoder.set_output(transform="pandas").fit_transform(table[["job"]])
    for frequency in (10, 10 / len(table)):
        found = TablePreprocessor(min_frequency=frequency, dtype="float64").fit_transform(table[["job"]])
        pd.testing.assert_frame_equal(found, expected)


def test_summaries_of_parts_merge_to_that_of_the_whole():
    values = pd.Series(np.random.default_rng(0).normal(1e9, 1, 1000), name="x")
    values[::7] = np.nan
    parts = [values[:1], values[1:1], values[1:700], values[700:]]
    merged = sum((NumberSummary.of(part) for part in parts[1:]), NumberSummary.of(parts[0])).learn("x")
    # A variance of sums of squares would have no digit left.
    assert merged.mean == pytest.approx(values.mean(), rel=1e-15)
    assert merged.scale == pytest.approx(values.std(ddof=0), rel=1e-6)


def test_columns_of_codes_are_treated_as_text_where_asked_for():
    frame = pd.DataFrame({"code": [3, 1, 3], "other": [1.0, 2.0, 3.0]})
    prepared = TablePreprocessor(categorical=["code"], drop=["other"]).fit(frame)
    assert list(prepared.get_feature_names_out()) == ["code_1", "code_3"]
    # With a missing value, pandas makes floats of them.
    later = pd.DataFrame({"code": [3, None, 7]})
    assert prepared.transform(later).to_numpy().tolist() == [[0, 1], [0, 0], [0, 0]]
    prepared = TablePreprocessor(categorical=["code"]).fit(later)
    assert list(prepared.get_feature_names_out()) == ["code_3", "code_7", "code_nan"]


@pytest.mark.parametrize("dtype", ["Int64", "Float32", "int64[pyarrow]", "boolean", "bool[pyarrow]"])
def test_nullable_and_arrow_types_are_read_like_numpy_ones(dtype):
    column = pd.Series([1, 0, 1, None], dtype=dtype)
    found = TablePreprocessor().fit_transform(pd.DataFrame({"x": column}))
    if "bool" in dtype:
        assert found.to_numpy().tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    else:
        assert_allclose(found["x"], [2**-0.5, -(2**0.5), 2**-0.5, 0], rtol=1e-6)
        assert found["missingindicator_x"].tolist() == [0, 0, 0, 1]


# --- what comes later --------------------------------------------------------------------------------


def test_values_that_were_never_seen_give_zeros_and_missing_numbers_the_mean(table):
    prepared = TablePreprocessor().fit(table)
    later = table[:2].assign(job=["astronaut", None], age=[None, 30], member=[True, None])
    found = prepared.transform(later)
    jobs = [name for name in found.columns if name.startswith("job_")]
    assert found[jobs].to_numpy().tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert found["age"].iloc[0] == 0
    assert found[["member_False", "member_True"]].iloc[1].tolist() == [0, 0]


def test_other_columns_and_another_order_make_no_difference(table):
    prepared = TablePreprocessor().fit(table)
    shuffled = table[table.columns[::-1]].assign(more="x")
    pd.testing.assert_frame_equal(prepared.transform(shuffled), prepared.transform(table))


def test_a_missing_column_is_named_with_what_may_have_been_meant(table):
    prepared = TablePreprocessor().fit(table)
    with pytest.raises(ValueError, match=r"Expected column 'job' .* Did you mean 'jobs'\?"):
        prepared.transform(table.rename(columns={"job": "jobs"}))


def test_text_where_numbers_were_is_refused_and_the_other_way_round(table):
    prepared = TablePreprocessor().fit(table)
    with pytest.raises(PartitionError, match="Expected numbers in column 'age', received"):
        prepared.transform(table.assign(age="old"))
    with pytest.raises(PartitionError, match=r"Expected text in column 'job', .* received numbers such as 1"):
        prepared.transform(table.assign(job=1))


# --- what cannot be used -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.date_range("2020-01-01", periods=4), "received datetime64"),
        ([[1], [2], [3], [4]], "Expected text, booleans or numbers in column 'x', received"),
        (["a", 1, "b", "c"], "Expected values of one kind in column 'x', received numbers such as 1, text"),
        ([1.0, np.inf, 2.0, 3.0], "Column 'x' holds infinity in row 1"),
        ([1j, 2j, 3j, 4j], "received complex128"),
        (pd.period_range("2020", periods=4, freq="Y"), "received period"),
    ],
)
def test_columns_that_cannot_be_encoded_are_named_with_a_remedy(column, message):
    frame = pd.DataFrame({"good": [1, 2, 3, 4], "x": pd.Series(column)})
    with pytest.raises(ValueError, match=message):
        TablePreprocessor().fit(frame)
    TablePreprocessor(drop=["x"]).fit(frame)


def test_a_bad_partition_is_named(client):
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, np.inf]})
    with pytest.raises(PartitionError, match="Partition 1: Column 'x' holds infinity in row 1"):
        TablePreprocessor().fit(dd.from_pandas(frame, npartitions=2))


def test_too_many_distinct_values_are_refused_unless_the_rare_ones_share_a_column():
    frame = pd.DataFrame({"name": [f"n{i}" for i in range(30)] + ["common"] * 30})
    with pytest.raises(ValueError, match=r"'name' holds more than 20 distinct .*\(drop=\['name'\]\)"):
        TablePreprocessor(max_categories=20).fit(frame)
    found = TablePreprocessor(max_categories=20, min_frequency=2).fit_transform(frame)
    assert list(found.columns) == ["name_common", "name_infrequent_sklearn"]
    assert found.to_numpy().sum(axis=0).tolist() == [30, 30]


def test_what_is_no_dataframe_of_named_columns_is_refused():
    with pytest.raises(TypeError, match="Expected a pandas or Dask dataframe, received ndarray"):
        TablePreprocessor().fit(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"received the name 0.5. Use X.rename\(columns=str\)"):
        TablePreprocessor().fit(pd.DataFrame(np.zeros((3, 2)), columns=[0.5, 1.5]))
    with pytest.raises(ValueError, match="at least one row"):
        TablePreprocessor().fit(pd.DataFrame({"x": [1.0]})[:0])
    with pytest.raises(ValueError, match=r"named in drop\. Did you mean 'age'\?"):
        TablePreprocessor(drop=["aeg"]).fit(people()[0])
    with pytest.raises(NotFittedError):
        TablePreprocessor().transform(people()[0])


def test_names_that_would_be_the_same_are_told_apart():
    frame = pd.DataFrame({"a": ["b_c"], "a_b": ["c"]})
    assert list(TablePreprocessor().fit(frame).get_feature_names_out()) == ["a_b_c", "a_b_c_2"]


# --- on a cluster ------------------------------------------------------------------------------------


def test_a_dask_dataframe_stays_lazy_and_the_graph_holds_one_encoder(client, table):
    X = dd.from_pandas(table, npartitions=5, sort=False)
    prepared = TablePreprocessor().fit(X)
    found = prepared.transform(X)
    assert isinstance(found, dd.DataFrame)
    pd.testing.assert_frame_equal(found._meta, prepared.transform(table[:0]))
    assert sum(key[0].startswith("dasknn-table") for key in found.dask) == 1
    pd.testing.assert_frame_equal(found.compute(), prepared.transform(table))


def test_what_is_learned_does_not_depend_on_where_it_is_learned(cluster, table):
    X = dd.from_pandas(table, npartitions=7, sort=False)
    here = TablePreprocessor().fit(X)
    with Client(cluster):
        assert TablePreprocessor().fit(X).describe() == here.describe()


def test_a_pipeline_trains_predicts_and_scores_on_a_cluster(client, pipeline):
    frame, label = people(2000)
    data = dd.from_pandas(frame.assign(label=label), npartitions=4, sort=False)
    X, y = data.drop(columns="label"), data["label"]
    pipeline.fit(X, y)
    assert pipeline.score(X, y) > 0.85
    assert pipeline.score(frame, label) == pytest.approx(pipeline.score(X, y))
    assert_array_equal(pipeline.predict(X).compute(), pipeline.predict(frame))
    assert_allclose(pipeline.predict_proba(X).compute(), pipeline.predict_proba(frame), atol=1e-6)
    assert list(pipeline.feature_names_in_) == list(frame.columns)


# --- as scikit-learn's tools expect it ---------------------------------------------------------------


@pytest.mark.parametrize("is_lazy", [False, True])
def test_a_pipeline_sends_x_val_through_the_table(pipeline, is_lazy):
    frame, label = people()
    held_out = people(seed=1)
    data = [frame, label, *held_out]
    if is_lazy:
        data = [dd.from_pandas(part, npartitions=2, sort=False) for part in data]
    X, y, X_val, y_val = data
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline["mlp"].set_fit_request(X_val=True, y_val=True)
        pipeline.set_params(transform_input=["X_val"])
        pipeline.fit(X, y, X_val=X_val, y_val=y_val)
        assert pipeline["mlp"].validation_scores_[-1] == pytest.approx(pipeline.score(*held_out))
    assert len(pipeline["mlp"].validation_scores_) == pipeline["mlp"].n_iter_


def test_validation_data_that_skips_the_table_is_refused_with_a_remedy(pipeline):
    frame, label = people()
    for data in ((frame, label), (frame[["age", "hours"]], label)):
        with pytest.raises(ValueError, match=r".") as raised:
            pipeline.fit(frame, label, mlp__validation_data=data)
        assert 'transform_input=["X_val"]' in " ".join(raised.value.__notes__)


def test_a_pipeline_may_end_in_a_sequential():
    frame, label = people()
    X, y = dd.from_pandas(frame, npartitions=2, sort=False), (label == "yes").to_numpy(int)
    model = dasknn.Sequential([Dense(8, activation="relu"), Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    pipeline = make_pipeline(TablePreprocessor(), model)
    with pytest.raises(NotFittedError):
        pipeline.predict(frame)
    pipeline.fit(frame, y, sequential__verbose=0, sequential__epochs=2)
    outputs = pipeline.predict(frame, verbose=0)
    assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)
    assert_allclose(pipeline.predict(X).compute(), outputs, rtol=1e-5)
    assert_array_equal(outputs, model.predict(pipeline[0].transform(frame), verbose=0))
    assert_array_equal(clone(pipeline).fit(frame, y, sequential__verbose=0)[0].columns_, pipeline[0].columns_)
    assert "TablePreprocessor" in pipeline._repr_html_()


def test_a_table_says_that_it_takes_dataframes_alone():
    assert not get_tags(TablePreprocessor()).input_tags.two_d_array
    with pytest.raises(TypeError, match="Expected a pandas or Dask dataframe, received ndarray"):
        TablePreprocessor().fit(np.zeros((2, 2)))


def test_a_pipeline_can_be_cloned_searched_and_pickled(pipeline):
    frame, label = people()
    search = GridSearchCV(pipeline, {"mlp__alpha": [1e-4, 1e-2], "table__min_frequency": [None, 20]}, cv=2)
    search.fit(frame, label)
    assert set(search.best_params_) == {"mlp__alpha", "table__min_frequency"}
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert_array_equal(again.predict(frame), search.predict(frame))
    assert clone(pipeline).get_params()["table__max_categories"] == 1000


def test_settings_that_make_no_sense_are_refused(table):
    with pytest.raises(ValueError, match="'min_frequency' parameter of TablePreprocessor"):
        TablePreprocessor(min_frequency=0).fit(table)
    with pytest.raises(ValueError, match="Expected transform='default' or 'pandas', received 'polars'"):
        TablePreprocessor().set_output(transform="polars")


# --- files -------------------------------------------------------------------------------------------


def test_a_pipeline_in_a_file_is_the_same_pipeline(pipeline, tmp_path):
    frame, label = people()
    pipeline.set_params(table__min_frequency=10).fit(frame, label)
    dasknn.save(pipeline, tmp_path / "m.safetensors")
    again = dasknn.load(tmp_path / "m.safetensors")
    assert [name for name, _ in again.steps] == ["table", "mlp"]
    assert_array_equal(again.predict_proba(frame), pipeline.predict_proba(frame))
    assert again["table"].describe() == pipeline["table"].describe()
    assert bits(again["mlp"]) == bits(pipeline["mlp"])
    assert again["mlp"].history_ == pipeline["mlp"].history_
    assert again.get_params()["table__min_frequency"] == 10


def test_a_table_alone_and_a_pipeline_that_ends_in_a_sequential_are_kept(tmp_path):
    frame, _ = people()
    y = np.arange(len(frame)) % 2
    table = TablePreprocessor().fit(frame)
    dasknn.save(table, tmp_path / "table")
    again = dasknn.load(tmp_path / "table")
    assert isinstance(again, TablePreprocessor)
    assert again.describe() == table.describe()
    assert_array_equal(again.transform(frame), table.transform(frame))

    model = dasknn.Sequential([Dense(8, activation="relu"), Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.fit(table.transform(frame), y, verbose=0)
    dasknn.save(Pipeline([("t", table), ("net", model)]), tmp_path / "m")
    whole = dasknn.load(tmp_path / "m")
    assert [name for name, _ in whole.steps] == ["t", "net"]
    X = whole["t"].transform(frame)
    assert_array_equal(whole["net"].predict(X, verbose=0), model.predict(X, verbose=0))
    # It goes on with its optimizer.
    for each in (model, whole["net"]):
        each.fit(X, y, verbose=0, shuffle=False)
    assert_array_equal(whole["net"].predict(X, verbose=0), model.predict(X, verbose=0))


def test_estimators_and_urls_are_saved_and_loaded_as_before():
    frame, _ = people()
    X, y = frame[["age"]], frame["age"] * 2.0
    model = MLPRegressor(hidden_layer_sizes=(3,), max_iter=2, random_state=0).fit(X, y)
    dasknn.save(model, "memory://m.safetensors")
    again = dasknn.load("memory://m.safetensors")
    assert isinstance(again, MLPRegressor)
    assert bits(again) == bits(model)
    whole = Pipeline([("t", TablePreprocessor()), ("r", model)]).fit(frame, y)
    dasknn.save(whole, "memory://p.safetensors")
    assert_array_equal(dasknn.load("memory://p.safetensors").predict(frame), whole.predict(frame))


def test_every_damaged_byte_of_a_pipelines_file_is_noticed(pipeline, tmp_path):
    frame, label = people(60)
    pipeline.set_params(mlp__max_iter=1).fit(frame, label)
    dasknn.save(pipeline, tmp_path / "m")
    data = (tmp_path / "m").read_bytes()
    for at in range(0, len(data), 97):
        damaged = bytearray(data)
        damaged[at] ^= 1
        (tmp_path / "d").write_bytes(damaged)
        with pytest.raises(ModelFileError):
            dasknn.load(tmp_path / "d")


@pytest.mark.parametrize(
    "change",
    [
        lambda steps: steps[0]["columns"].pop(),
        lambda steps: steps[0]["columns"][0].pop("mean"),
        lambda steps: steps[0]["columns"][0].update(kind="os.system"),
        lambda steps: steps[0].update(kind="os.system"),
        lambda steps: steps[1].update(kind="Pipeline"),
        lambda steps: steps.pop(),
        lambda steps: steps[0]["parameters"].update(unknown=1),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(pipeline, tmp_path, change):
    frame, label = people(60)
    dasknn.save(pipeline.set_params(mlp__max_iter=1).fit(frame, label), tmp_path / "m")
    description, arrays = safetensors_file.read(tmp_path / "m")
    change(description["steps"])
    safetensors_file.write(tmp_path / "m", description, arrays)
    with pytest.raises(ModelFileError):
        dasknn.load(tmp_path / "m")


def test_what_cannot_be_saved_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(TypeError, match=r"received a Pipeline of StandardScaler, MLPClassifier.*joblib"):
        dasknn.save(make_pipeline(StandardScaler(), MLPClassifier()), tmp_path / "m")
    with pytest.raises(NotFittedError):
        dasknn.save(make_pipeline(TablePreprocessor(), MLPClassifier()), tmp_path / "m")


def test_no_more_values_are_counted_than_a_driver_can_hold(monkeypatch):
    monkeypatch.setattr("dasknn.data.column_kinds._MOST_VALUES", 3)
    with pytest.raises(PartitionError, match="holds more than 3 distinct values"):
        CategorySummary.of(pd.Series(list("abcd"), name="x"))


# --- integers as names, decimals ----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pandas", "Dask"])
def test_columns_called_by_integers_are_called_so_as_text(form):
    frame = pd.DataFrame({0: [1.0, 2.0, 3.0], 1: ["x", "y", "x"], 2: [0.0, 0.0, 1.0]})
    given = dd.from_pandas(frame, npartitions=2) if form == "Dask" else frame
    found = TablePreprocessor(drop=[2]).fit_transform(given)
    assert list(found.columns) == ["0", "1_x", "1_y"]
    # By their names, in whatever order they come.
    table = TablePreprocessor().fit(given)
    turned, straight = (dask.compute(table.transform(given[order]))[0] for order in ([2, 1, 0], [0, 1, 2]))
    pd.testing.assert_frame_equal(turned, straight)


def prices(form, folder):
    """A table with a column of decimals, one of them missing."""
    table = pa.table(
        {
            "price": pa.array([*(decimal.Decimal(i % 5) / 4 for i in range(39)), None], pa.decimal128(10, 2)),
            "y": np.arange(40) % 2,
        }
    )
    if form == "objects":
        return table.to_pandas()
    if form == "Arrow":
        return table
    pq.write_table(table, folder / "prices.parquet")
    return dd.read_parquet(folder / "prices.parquet").repartition(npartitions=2)


@pytest.mark.parametrize("form", ["objects", "Arrow", "Parquet"])
def test_decimals_are_numbers(form, tmp_path):
    table = TablePreprocessor().fit(prices(form, tmp_path))
    floats = prices("objects", tmp_path).astype({"price": "float64"})
    assert [type(column) for column in table.columns_] == [Numbers, Numbers]
    assert_allclose(table.columns_[0].mean, floats["price"].mean())
    found = table.transform(prices(form, tmp_path))
    assert_allclose(dask.compute(found)[0], TablePreprocessor().fit_transform(floats))


def test_decimals_that_are_codes_become_columns(tmp_path):
    table = TablePreprocessor(categorical=["price"]).fit(prices("Parquet", tmp_path))
    assert table.columns_[0].values == (0, 0.25, 0.5, 0.75, 1, None)


@pytest.mark.parametrize("face", ["scikit-learn", "keras"])
@pytest.mark.parametrize("form", ["objects", "Parquet"])
def test_networks_learn_from_decimals_as_from_floats(form, face, tmp_path):
    frame = prices(form, tmp_path).dropna()
    as_floats = frame.astype({"price": "float64"})

    def trained(X, y):
        if face == "keras":
            dasknn.set_random_seed(0)
            model = Sequential([Input((2,)), Dense(1)])
            model.compile("sgd", "mse")
            model.fit(X, y, shuffle=False, verbose=0)
        else:
            model = MLPRegressor(hidden_layer_sizes=(3,), max_iter=2, random_state=0).fit(X, y)
            model.score(X, y)
        return bits(model)

    columns = ["price", "y"]
    assert trained(frame[columns], frame["price"]) == trained(as_floats[columns], as_floats["price"])


@pytest.mark.parametrize("form", ["objects", "Dask"])
def test_labels_that_are_decimals_are_floats(form):
    grades = pa.array([decimal.Decimal(i % 3) for i in range(30)], pa.decimal128(3, 0))
    y = pd.Series(grades.to_pandas() if form == "objects" else pd.array(grades, pd.ArrowDtype(grades.type)))
    X, y = (
        data if form == "objects" else dd.from_pandas(data, npartitions=2)
        for data in (pd.DataFrame({"x": np.arange(30.0)}), y)
    )
    model = MLPClassifier((3,), max_iter=1).fit(X, y)
    assert model.classes_.dtype == np.float64
    assert model.classes_.tolist() == [0, 1, 2]
    assert 0 <= model.score(X, y) <= 1
