"""Which workers may train: those that give the wanted answer to a question, such as the version of a package.

Each worker is asked once; the client remembers its answers. Workers that do not answer in time are not
admitted, and asked again when workers are counted anew.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from dasknn.cluster.liveness import Liveness

Question = Callable[[], Any]

# How long a worker may take to answer a short question.
_ANSWER_SECONDS = 5.0
# By client: answers by question and address.
_answers: weakref.WeakKeyDictionary[Any, dict[tuple[Question, str], Any]] = weakref.WeakKeyDictionary()


class Admission:
    """The answers of a cluster's workers, and the one that they have to give.

    Parameters
    ----------
    client : distributed.Client
    liveness : Liveness
    """

    def __init__(self, client: Any, liveness: Liveness):
        self._liveness = liveness
        self._known = _answers.setdefault(client, {})
        self._wanted: tuple[Question, Any] | None = None
        self._silent: set[str] = set()

    def answers(self, question: Question, workers: Iterable[str]) -> dict[str, Any]:
        """Return question() as computed by each of these workers, by address; those that are silent lack."""
        workers = list(workers)
        unknown = [w for w in workers if (question, w) not in self._known and w not in self._silent]
        if unknown:
            found = self._liveness.call(question, workers=unknown, seconds=_ANSWER_SECONDS)
            self.note(question, found)
            self._silent |= set(unknown) - set(found)
        return self.known(question, workers)

    def note(self, question: Question, answers: Mapping[str, Any]) -> None:
        """Remember answers that workers have given in another way."""
        self._known.update({(question, worker): answer for worker, answer in answers.items()})

    def known(self, question: Question, workers: Iterable[str]) -> dict[str, Any]:
        """Return the answers that are known already, by address."""
        return {w: self._known[question, w] for w in workers if (question, w) in self._known}

    def require(self, question: Question, answer: Any) -> None:
        """Admit only workers that give this answer, from now on."""
        self._wanted = question, answer

    def admitted(self, workers: Collection[str]) -> Collection[str]:
        """Return those of these workers that are admitted."""
        if self._wanted is None:
            return workers
        question, answer = self._wanted
        found = [w for w, given in self.answers(question, workers).items() if given == answer]
        if not found and self._silent:
            self.ask_again()
        return found

    def ask_again(self) -> None:
        """Ask those again that have not answered, the next time."""
        self._silent.clear()
