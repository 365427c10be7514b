"""How many evaluations a site has answered: what they tell carries no noise and is in no ledger, so policy bounds them.

    state/evaluations.jsonl    one line for each answer, on the disk before the answer leaves

The same request asked again, whose answer is the same, is counted once; the count holds over runs and restarts. A line
that cannot be read counts as an answer. The file has no copy elsewhere, unlike the ledger: whoever deletes it at the
site starts anew. Runs bear the names that the server gives them, so the bound on them all is the one that holds against
a server.
"""

from __future__ import annotations

__all__ = ["Answered", "count_evaluation", "count_models", "read_answered"]

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import EvaluationsExhausted, LedgerRefused, RunFailed
from common.files import alone, append_line, sha256_bytes
from common.parsing import to_table

if TYPE_CHECKING:
    from client.site import Site
    from common.orders import EvaluateOrder
    from common.update import Weights

_FILE = "evaluations.jsonl"


@dataclass(frozen=True)
class Answered:
    """What a site has answered: requests (SHA-256 of each) by run, and how many lines could not be read."""

    requests: Mapping[str, frozenset[str]]
    damaged: int = 0

    @property
    def in_all(self) -> int:
        """Answers over all runs."""
        return self.damaged + sum(len(asked) for asked in self.requests.values())


def _require_untrained(folder: Path, site: Site, order: EvaluateOrder) -> None:
    """Numbers of an evaluation carry no noise: about patients who trained they would undo what the noise was for."""
    ledger = folder / "state" / "ledger.jsonl"
    asked = any("train" in parts for parts in order.parts.values())
    if asked and site.policy.privacy_required and ledger.exists() and ledger.stat().st_size:
        raise LedgerRefused(
            f"site {site.id} has trained with privacy and answers no evaluation about the patients who did; "
            "ask for its val and test patients"
        )


def count_evaluation(folder: Path, site: Site, order: EvaluateOrder, weights: Weights, *, terms: str = "") -> None:
    """Write down that `order` is about to be answered about a training site's patients; a held-out site only evaluates.

    `folder` is where the site keeps its state, `weights` are those that came with the order, `terms` is what else
    decides the answer. Raises EvaluationsExhausted where the policy allows no more, LedgerRefused where it would be
    about patients whom privacy hides, RunFailed where it cannot be written down: then nothing may be answered.
    """
    from common.update import fingerprint

    _require_untrained(folder, site, order)
    if site.role == "held-out":
        return
    state, policy, run = folder / "state", site.policy, order.run
    asked = json.dumps([to_table(order), site.data_sha256, fingerprint(weights), terms], sort_keys=True)
    request = sha256_bytes(asked.encode())
    with _alone(state, site=site.id):
        answered = read_answered(folder)
        of_run = answered.requests.get(run, frozenset())
        if request in of_run:
            return
        for done, most, where in (
            (len(of_run), policy.evaluations_per_run, f"of run {run}, all that policy.evaluations_per_run allows"),
            (answered.in_all, policy.evaluations_in_all, "in all, which is what policy.evaluations_in_all allows"),
        ):
            if done >= most:
                raise EvaluationsExhausted(
                    f"site {site.id} has answered {done} evaluations {where}; ask for fewer, or raise it at the site"
                )
        append_line(state / _FILE, json.dumps({"run": run, "request": request}, ensure_ascii=False))


def count_models(folder: Path, site: Site, order: EvaluateOrder, weights: Weights, *, terms: str = "") -> None:
    """`count_evaluation` for every model of an order: one of the stage `paired` asks about two."""
    for number in (1, 2) if order.stage == "paired" else (0,):
        count_evaluation(folder, site, order, weights, terms=f"{terms} model {number}" if number else terms)


def read_answered(folder: Path) -> Answered:
    """What the site of this folder has answered so far; RunFailed where that cannot be read."""
    requests: dict[str, set[str]] = {}
    damaged = 0
    for line in _content(folder / "state" / _FILE).split(b"\n"):
        if line:
            run, request = _parsed(line)
            if run is None:
                damaged += 1
            else:
                requests.setdefault(run, set()).add(request)
    return Answered({run: frozenset(asked) for run, asked in requests.items()}, damaged)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RunFailed(
            f"state/{_FILE} cannot be read ({error.strerror}); restore it, or let the client read it"
        ) from None


def _parsed(line: bytes) -> tuple[str | None, str]:
    with suppress(ValueError, KeyError, TypeError):
        told = json.loads(line)
        return str(told["run"]), str(told["request"])
    return None, ""


@contextmanager
def _alone(state: Path, *, site: str) -> Iterator[None]:
    """Wait until no other process counts here; between reading and writing nobody else may."""
    with ExitStack() as held:
        try:
            held.enter_context(alone(state / "evaluations.lock"))
        except OSError as error:
            raise RunFailed(
                f"site {site}: its evaluations cannot be counted ({error.strerror}), so none is answered; let the "
                "client write to state/"
            ) from None
        yield
