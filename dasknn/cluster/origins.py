"""Where work may go and where data came from: workers that users name, and clients that hold results.

Users name workers as they do elsewhere in Dask: by address, by name, or by host for all that run there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import dask
from dask.base import is_dask_collection

from dasknn._compat.sklearn import _clone_parametrized

_PLACE = ("client", "workers")


class Placed:
    """What attributes tell where to run. They go into clones, which run there, too, and into no file."""

    #: The distributed client to use; None stands for the current one, if there is one.
    client: Any = None
    #: Addresses, names or hosts of the workers to use; None stands for those that
    #: `dask.annotate(workers=...)` names, around `fit` or around the making of the data, or else for all.
    workers: Any = None

    def __getstate__(self):
        state: Any = super().__getstate__()
        # A client belongs to its process, and workers to their cluster.
        return {name: value for name, value in state.items() if name not in _PLACE}

    def __sklearn_clone__(self):
        # No parameters, since they are in no file; a search goes on where its estimator was told to.
        twin = _clone_parametrized(self)
        self._place(twin)
        return twin

    def _place(self, twin) -> None:
        """Tell a copy to run where this one was told to."""
        # Only what was said: scikit-learn looks for attributes that are set before fit.
        vars(twin).update({name: vars(self)[name] for name in _PLACE if name in vars(self)})


class Selection:
    """The workers that may be used. words: addresses, names or hosts."""

    def __init__(self, words: Collection[Any]):
        self.words = tuple(words)
        self._wanted = frozenset(map(str, words))
        self._known: dict[str, bool] = {}

    def __str__(self):
        return ", ".join(sorted(self._wanted))

    def knows(self, addresses: Iterable[str]) -> bool:
        """Return whether all of these workers have been looked at."""
        return self._known.keys() >= set(addresses)

    def look_at(self, workers: Mapping[str, Mapping[str, Any]]) -> None:
        """Take down which workers are meant; what the scheduler says of each, by address."""
        for address, about in workers.items():
            said = {address, address.rpartition("://")[2], str(about["name"]), about["host"]}
            self._known[address] = not self._wanted.isdisjoint(said)

    def allows(self, address: str) -> bool:
        """Return whether this worker may be used."""
        return self._known.get(address, False)


def selection(workers, collections: Iterable[Any] = ()) -> Selection | None:
    """Return which workers may be used, None for all of them.

    workers: as a model was told, one or several. Else what `dask.annotate(workers=...)` says, around this
    call or around the making of one of the Dask collections. TypeError: something else than words.
    """
    if workers is None:
        workers = _annotated(dask.get_annotations())
    if workers is None:
        layers = (layer for data in collections for layer in _layers_of(data))
        found = [own for layer in layers if (own := _annotated(layer.annotations or {})) is not None]
        # What one collection may not leave, the others come to.
        workers = found[0] if found else None
    if workers is None:
        return None
    words = [workers] if isinstance(workers, str) else workers
    if not isinstance(words, Collection) or not words or not all(isinstance(w, str | int) for w in words):
        raise TypeError(
            "Expected workers to be a list of addresses, names or hosts of workers, received "
            f"{workers!r}. Client.scheduler_info() lists them; None stands for all."
        )
    return Selection(words)


def _annotated(annotations: Mapping[str, Any]):
    # A function says it of each task; and where others may help, it is no more than a wish.
    if annotations.get("allow_other_workers") or callable(annotations.get("workers")):
        return None
    return annotations.get("workers")


def _layers_of(data) -> Iterable[Any]:
    # Dataframes know nothing of annotations.
    graph = data.__dask_graph__() if is_dask_collection(data) and not hasattr(data, "expr") else None
    return getattr(graph, "layers", {}).values()


def check_client(client, collections: Iterable[Any]) -> None:
    """Raise ValueError for a collection that holds results which another cluster, or nobody, keeps."""
    from distributed import futures_of

    for data in filter(is_dask_collection, collections):
        others = {id(future.client): future.client for future in futures_of(data)}
        for other in others.values():
            if other is None or other is client:
                continue
            kind = type(data).__name__
            if other.status == "closed":
                raise ValueError(
                    f"The {kind} was persisted with a client that has been closed since, and its data with "
                    "it. Create it again, and persist it with the client that trains."
                )
            if scheduler_of(other) != scheduler_of(client):
                raise ValueError(
                    f"The {kind} was persisted on the cluster of {_address_of(other)}, and this would run on "
                    f"that of {_address_of(client)}. Set model.client to the client with which it was "
                    "persisted, or persist it with the other one."
                )


def scheduler_of(client) -> str | None:
    """Return the name of the client's scheduler, which no other has; None: the client is closed."""
    # Client.scheduler_info would wait for a scheduler that may be gone.
    identity = client._scheduler_identity
    return identity.get("id")


def _address_of(client) -> str:
    return client.scheduler.address if client.scheduler else "a scheduler that is gone"
