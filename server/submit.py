"""Submit a prepared run folder to a SuperLink and follow it to its end; the folder's own records say how it ended."""

from __future__ import annotations

__all__ = ["follow", "submit"]

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from common.config import Experiment
from common.errors import BadInput, RunFailed, SonofedError
from common.files import claimed
from common.processes import signals_as_interrupt
from common.progress import Progress
from server.control import Control, write_thin_app
from server.records import read_records
from server.run import open_run
from server.superlink import RUNS, running

_GLANCE_SECONDS = 0.5
_ALIVE_SECONDS = 3.0
_LOOK_SECONDS = 10.0
_DEAD_SECONDS = 15.0
_SLACK_SECONDS = 180.0


def submit(folder: Path, *, state: Path, train: bool = True, final: bool = True, timeout: float | None = None) -> int:
    """Run the prepared folder on the server of `state`, and wait; 0 when its records say that it ended well.

    `train=False` evaluates the stored weights only; `final=False` leaves the last evaluation out.

    The bundle that travels is a single pyproject.toml, and the run folder goes by a name that only this machine can
    resolve. Ctrl-C and SIGTERM stop the run; what was finished is kept. `timeout`: seconds in all, None for as long as
    the experiment's own deadlines allow. BadInput where no server runs or the folder is not prepared; RunFailed, with
    the reason that stands in the records, where the run failed, the server died or nothing happened for too long.
    """
    experiment, _ = open_run(folder)
    control = running(state)
    busy = f"{folder}: another process works in this folder; wait for it or choose another --out"
    with (
        claimed(folder / ".lock", complaint=busy),
        _named(folder, state / RUNS, experiment) as name,
        signals_as_interrupt(),
    ):
        app = write_thin_app(state / "app")
        options: dict[str, str | bool] = {"run-folder": name, "train": train, "final": final}
        return follow(control, app, folder, experiment, options, timeout=timeout)


def follow(
    control: Control,
    app: Path,
    folder: Path,
    experiment: Experiment,
    options: dict[str, str | bool],
    *,
    engine: dict[str, float] | None = None,
    timeout: float | None = None,
    settle: float = 0.0,
) -> int:
    """Start the run over `control` and watch it; see `submit`. Whatever ends the watching early stops the run.

    `settle`: seconds to wait at most, after the records' end, until Flower too has done with the run.
    """
    before = len(read_records(folder / "records.jsonl"))
    run = control.start(app, options, engine=engine)
    watch = _Watch(control, run, folder / "records.jsonl", experiment, before=before, timeout=timeout)
    try:
        code = watch.to_the_end()
        watch.settle(settle)
        return code
    except BaseException:
        print("stopping the run", file=sys.stderr, flush=True)
        with suppress(SonofedError):
            control.stop(run)
        raise


class _Watch:
    """Reads the records twice a second, and asks the server now and then whether it and the run are still there."""

    def __init__(
        self,
        control: Control,
        run: str,
        records: Path,
        experiment: Experiment,
        *,
        before: int,
        timeout: float | None,
    ) -> None:
        self._control, self._run, self._records = control, run, records
        self._rounds = experiment.training.rounds
        self._before, self._seen, self._shown = before, before, 0
        now = time.monotonic()
        self._end = None if timeout is None else now + timeout
        self._quiet = _SLACK_SECONDS + experiment.deadlines.gather + 3 * experiment.deadlines.reply
        self._moved = self._answered = self._asked = self._looked = now

    def to_the_end(self) -> int:
        """0 when the run ended well; BadInput or RunFailed, with the records' reason, when not."""
        with Progress("training", total=self._rounds) as progress:
            while True:
                events = read_records(self._records)[self._before :]
                self._show(events, progress)
                ends = [event for event in events if event["event"] == "end"]
                if ends:
                    return _judged(ends[-1])
                self._check_server()
                time.sleep(_GLANCE_SECONDS)

    def settle(self, seconds: float) -> None:
        """Wait until Flower has done with the run, `seconds` at most."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._control.look(self._run).finished:
            time.sleep(_GLANCE_SECONDS)

    def _show(self, events: list[dict[str, Any]], progress: Progress) -> None:
        total = self._before + len(events)
        for event in events[self._seen - self._before :]:
            if event["event"] == "failure":
                print(f"site {event['site']} failed: {event['why']}", file=sys.stderr, flush=True)
        if total > self._seen:
            self._seen, self._moved = total, time.monotonic()
        rounds = [int(event["round"]) for event in events if event["event"] in ("round", "resumed")]
        done = rounds[-1] if rounds else 0
        if done < self._rounds or done > self._shown:
            self._shown = done
            progress.update(done, note=f"round {done} of {self._rounds}{_spent(events)}")

    def _check_server(self) -> None:
        now = time.monotonic()
        if self._end is not None and now > self._end:
            raise RunFailed("the run did not end within the time given; what was finished is kept, go on with --resume")
        if now - self._moved > self._quiet:
            raise RunFailed(f"nothing happened for {self._quiet:g} s, longer than all deadlines; go on with --resume")
        if now - self._asked > _ALIVE_SECONDS:
            self._asked = now
            if self._control.alive():
                self._answered = time.monotonic()
            elif now - self._answered > _DEAD_SECONDS:
                raise RunFailed("the server stopped during the run; start it again, then go on with --resume")
        if now - self._looked > _LOOK_SECONDS and self._answered == max(self._answered, self._asked):
            self._look()

    def _look(self) -> None:
        """RunFailed where Flower has done with the run and the records still have no end."""
        try:
            where = self._control.look(self._run)
        except RunFailed:
            return
        finally:
            self._looked = time.monotonic()
        if where.finished and not self._ended():
            raise RunFailed(f"the run ended without a result ({where.status}); the server's log says more")

    def _ended(self) -> bool:
        return any(event["event"] == "end" for event in read_records(self._records)[self._before :])


def _spent(events: list[dict[str, Any]]) -> str:
    """What the sites say of their ledgers, the last of each; nothing without privacy."""
    told = {event["site"]: event["privacy"] for event in events if event["event"] == "train" and "privacy" in event}
    each = (f"{site} {spent['epsilon']:.2f} of {spent['cap']:g}" for site, spent in sorted(told.items()))
    return f"; ε: {', '.join(each)}" if told else ""


def _judged(end: dict[str, Any]) -> int:
    if end.get("ok"):
        return 0
    kind = BadInput if end.get("exit_code") == BadInput.exit_code else RunFailed
    raise kind(str(end.get("why", "no reason was recorded")))


@contextmanager
def _named(folder: Path, runs: Path, experiment: Experiment) -> Iterator[str]:
    """A name under which the server's own process finds the run folder."""
    runs.mkdir(parents=True, exist_ok=True)
    name = f"{experiment.name}-{secrets.token_hex(4)}"
    link = runs / name
    link.symlink_to(folder.resolve(), target_is_directory=True)
    try:
        yield name
    finally:
        link.unlink(missing_ok=True)
