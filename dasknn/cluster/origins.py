"""Which workers may be used, and which cluster holds the data.

Users name workers as they do elsewhere in Dask: by address, by name, or by host for all workers on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import dask
from dask.base import is_dask_collection

from dasknn._compat.sklearn import _clone_parametrized

_PLACE = ("client", "workers")


class Placed:
    """Attributes that say where a model runs. Clones keep them; pickles and model files do not."""

    #: The distributed client to use; None for the current one, if there is one.
    client: Any = None
    #: Addresses, names or hosts of workers to use; None for those that `dask.annotate(workers=...)` names,
    #: around `fit` or around the creation of the data, or else for all.
    workers: Any = None

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        # A client belongs to its process, and workers to their cluster.
        return {name: value for name, value in state.items() if name not in _PLACE}

    def __sklearn_clone__(self) -> Any:
        # They are not parameters, because files do not keep them. But a search has to run where its estimator
        # does.
        twin = _clone_parametrized(self)
        self._place(twin)
        return twin

    def _place(self, twin: Any) -> None:
        """Make a copy run where this one does."""
        # Only what was set: scikit-learn checks which attributes are set before fit.
        vars(twin).update({name: vars(self)[name] for name in _PLACE if name in vars(self)})


class Selection:
    """The workers that may be used.

    words: their addresses, names or hosts.
    """

    def __init__(self, words: Collection[Any]):
        self.words = tuple(words)
        self._wanted = frozenset(map(str, words))
        self._known: dict[str, bool] = {}

    def __str__(self) -> str:
        return ", ".join(sorted(self._wanted))

    def knows(self, addresses: Iterable[str]) -> bool:
        """Return whether all of these workers have been looked at."""
        return self._known.keys() >= set(addresses)

    def look_at(self, workers: Mapping[str, Mapping[str, Any]]) -> None:
        """Note which of these workers may be used. workers: what the scheduler knows of each, by address."""
        for address, about in workers.items():
            names = {address, address.rpartition("://")[2], str(about["name"]), about["host"]}
            self._known[address] = not self._wanted.isdisjoint(names)

    def allows(self, address: str) -> bool:
        """Return whether this worker may be used."""
        return self._known.get(address, False)


def selection(workers: Any, collections: Iterable[Any] = ()) -> Selection | None:
    """Return which workers may be used; None for all of them.

    Parameters
    ----------
    workers : str, list of str or None
        What the model has set. None for what `dask.annotate(workers=...)` says, around this call or around
        the creation of one of the collections.
    collections : iterable
        The data, Dask collections or not.

    Raises
    ------
    TypeError
        Workers are not strings or numbers.
    """
    if workers is None:
        workers = _annotated(dask.get_annotations())
    if workers is None:
        layers = (layer for data in collections for layer in _layers_of(data))
        found = [own for layer in layers if (own := _annotated(layer.annotations or {})) is not None]
        # Data of one collection must stay where it is annotated; the others can move there.
        workers = found[0] if found else None
    if workers is None:
        return None
    words = [workers] if isinstance(workers, str) else workers
    if not isinstance(words, Collection) or not words or not all(isinstance(w, str | int) for w in words):
        raise TypeError(
            "Expected workers to be a list of addresses, names or hosts of workers, received "
            f"{workers!r}. Client.scheduler_info() lists them; None means all."
        )
    return Selection(words)


def _annotated(annotations: Mapping[str, Any]) -> Any:
    # A function annotates each task for itself; and where other workers are allowed, it is only a preference.
    if annotations.get("allow_other_workers") or callable(annotations.get("workers")):
        return None
    return annotations.get("workers")


def _layers_of(data: Any) -> Iterable[Any]:
    # Dataframes do not support annotations.
    graph = data.__dask_graph__() if is_dask_collection(data) and not hasattr(data, "expr") else None
    return getattr(graph, "layers", {}).values()


def check_client(client: Any, collections: Iterable[Any]) -> None:
    """Raise ValueError for a collection with results that another cluster, or no cluster, holds."""
    from distributed import futures_of

    for data in filter(is_dask_collection, collections):
        others = {id(future.client): future.client for future in futures_of(data)}
        for other in others.values():
            if other is None or other is client:
                continue
            kind = type(data).__name__
            if other.status == "closed":
                raise ValueError(
                    f"The {kind} was persisted with a client that is now closed, so its data is gone. Create "
                    "it again, and persist it with the client that trains."
                )
            if scheduler_of(other) != scheduler_of(client):
                raise ValueError(
                    f"The {kind} was persisted on the cluster of {_address_of(other)}, but the model would "
                    f"run on that of {_address_of(client)}. Set model.client to the client with which it was "
                    "persisted, or persist it with the other one."
                )


def scheduler_of(client: Any) -> str | None:
    """Return the unique id of the client's scheduler; None if the client is closed."""
    # Client.scheduler_info would wait for a scheduler that may be gone.
    identity = client._scheduler_identity
    return identity.get("id")


def _address_of(client: Any) -> str:
    return client.scheduler.address if client.scheduler else "a scheduler that is gone"
