"""``hpsearch rerun``."""

from __future__ import annotations

import math
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from cyclopts import Parameter

from hpsearch.address import Address, parse, run_of, study_of, trial_of
from hpsearch.cli.run import HERE, How
from hpsearch.cli.settings import COMMON, Common, setting, workers
from hpsearch.cli.terminal import number, out, out_json, say, width
from hpsearch.errors import CheckError, UsageError
from hpsearch.trial import RunKey

if TYPE_CHECKING:
    from hpsearch.archive import Archive, StudySummary
    from hpsearch.rerun import Comparison, Difference
    from hpsearch.study import Study

#: what to look at where nothing else explains a difference
RANDOM = (
    "nothing around it has changed. Seeded are torch, numpy and random; what the training code takes from elsewhere "
    "is not: data that has changed, the clock, os.urandom, the order of a set of strings, threads of its own; nor does "
    "anybody see what training code keeps outside its process or in libraries for the next run to read"
)
#: for a run of a group that was equal at first. Measured on the digits: at lr 0.32 and momentum 0.97, the last bit of
#: the loss alone parts two runs of the solo loop at the same epochs (8 to 12) as the group and the run alone
GROWN = (
    "it was equal at first, and nothing around it has changed: the last bits of a group differ from those of a run "
    "alone, and a training with large steps (lr, momentum) makes any difference grow"
)
#: digits of a number, where it takes so many to tell it from another
DIGITS = range(4, 18)


def rerun(
    *addresses: str,
    verify: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    tolerance: Annotated[float | None, Parameter(show_default=False)] = None,
    add_seeds: Annotated[int | None, Parameter(show_default=False)] = None,
    failed: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    how: How = HERE,
    common: Common = COMMON,
) -> int:
    """Repeat runs and compare them with the record; or add seeds; or repeat failures.

    Each run is trained again, alone in a fresh process (not with --on inline), and
    compared epoch by epoch. Nothing is recorded. One that was trained in a group is
    a lane again, the only one. On a CPU the same machine gives the same bits, on a
    GPU a lane is the same within the tolerance. --device: the CPU, by default, for
    runs that were trained on it.

    The tolerance is a part of a loss's size (of 0.01 where it is smaller), and 100
    times that part, at most a tenth, of another metric's (of 1 where that is less):
    many count examples, and one at the border may fall on either side.

    --add-seeds and --failed are recorded, as extra runs, which no strategy, pruner
    or race sees. A trial's state and value stay those of its search (one that has
    failed stays failed); compare, show and export see extra runs, compare a failed
    run's repetition in its place. Interrupted, the same command goes on; after its
    end it adds again, or repeats what has failed again. To add seeds until a trial
    beats another is to look repeatedly: only confirm corrects for that.

    Args:
        addresses: study/trial/seed, study/trial (all its runs) or study (all that did not fail; --failed: that did).
        verify: Exit with code 5 where a run differs beyond the tolerance, or could not be repeated.
        tolerance: How much losses and lr may differ, relatively; others 100 times that. Default: 1e-4, bfloat16 1e-2.
        add_seeds: Train trials (study: its best one) with so many new seeds, the same for all that are named.
        failed: Train failed runs (of a study, a trial, or one) once more with their seeds; the failed rows stay.
    """
    from hpsearch.stores.sql import open_archive

    if not addresses:
        raise UsageError("rerun needs a run, or more", hint="hpsearch rerun digits/12, or digits/12/0")
    wanted = [parse(address) for address in addresses]
    if add_seeds is None and not failed:
        return _compare(wanted, verify, tolerance, how, common)
    form = "--failed" if failed else "--add-seeds"
    others = {"--add-seeds": add_seeds is not None and failed, "--verify": verify, "--tolerance": tolerance is not None}
    if beside := next((flag for flag, given in others.items() if given), ""):
        raise UsageError(f"{form} and {beside}: one at a time", hint="a rerun that compares records nothing")
    from hpsearch.cli import extra

    archive = open_archive(common.database)
    if add_seeds is not None:
        return extra.add_seeds(archive, wanted, add_seeds, how, common)
    return extra.repeat_failed(archive, wanted, how, common)


def _compare(wanted: Sequence[Address], verify: bool, tolerance: float | None, how: How, common: Common) -> int:
    """Repeat and compare; record nothing."""
    from hpsearch.rerun import rerun as repeat
    from hpsearch.rerun import stored_runs
    from hpsearch.stores.sql import open_archive

    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise UsageError(f"--tolerance: must be at least 0, not {tolerance}")
    if how.fuse != HERE.fuse:
        hint = "--add-seeds and --failed train runs together"
        raise UsageError(f"--fuse {how.fuse}: what is compared is repeated alone", hint=hint)
    cluster = how.ray.options(how.on)
    archive = open_archive(common.database)
    stored = [(study, stored_runs(archive, study.name, keys)) for study, keys in _keys(archive, wanted, common.quiet)]
    if not common.quiet:
        count = sum(len(runs) for _, runs in stored)
        say(f"repeating {count} run{'s' * (count > 1)}, each alone", style="dim")
    found: list[tuple[str, Comparison]] = []
    stdout = sys.stdout
    for summary, runs in stored:
        study = _study(summary, quiet=common.quiet)
        # What training code prints in this process (--on inline) is no result of ours.
        with redirect_stdout(sys.stderr):
            again = repeat(
                study,
                runs,
                code_hash=summary.code_hash,
                allow_changed_code=how.allow_changed_code,
                workers=workers(how.workers),
                device=setting("device", how.device)[0],
                on=how.on,
                cluster=cluster,
                files=how.files,
                tolerance=tolerance,
                on_done=partial(_show, study.name, to=stdout, json=common.json),
            )
        found += [(f"{study.name}/{each.run}", each) for each in again]
    if common.json:
        out_json({"tolerance": _tolerance(found), "runs": [_json(address, each) for address, each in found]})
    elif not common.quiet:
        _summary([each for _, each in found])
    if verify:
        _check(found)
    return 0


def _keys(archive: Archive, addresses: Sequence[Address], quiet: bool) -> list[tuple[StudySummary, list[RunKey]]]:
    """The runs that are meant, by study. Of a whole study only those that can be repeated.

    Raises:
        UsageError: there is none.
    """
    from hpsearch.rerun import unrepeatable

    found: dict[str, tuple[StudySummary, list[RunKey]]] = {}
    for address in addresses:
        study = study_of(archive, address.study)
        keys = found.setdefault(study.name, (study, []))[1]
        if address.trial is None:
            runs = [run for trial in archive.trials(study.name) for run in trial.runs]
            good = [run.key for run in runs if not unrepeatable(run)]
            if not good:
                raise UsageError(
                    f"{study.name} has no run that could be repeated", hint=f"hpsearch status {study.name}"
                )
            if len(good) < len(runs) and not quiet:
                say(f"{study.name}: {len(runs) - len(good)} of {len(runs)} runs left out: failed, or not ended")
            keys += good
        else:
            trial = trial_of(archive, study.name, address.trial)
            runs = list(trial.runs) if address.seed is None else [run_of(study.name, trial, address)]
            keys += [run.key for run in runs]
    return list(found.values())


def _study(summary: StudySummary, *, quiet: bool) -> Study:
    """The study as it is stored; its file need not be there any more, its training code must."""
    from hpsearch.read import study_of as stored_study

    if not summary.file and not quiet:
        say(f"{summary.name} was written in Python; its training code is looked for from this folder")
    return stored_study(summary.spec, Path(summary.file).parent if summary.file else Path.cwd())


def _show(study: str, done: Comparison, *, to: TextIO, json: bool) -> None:
    """What came of one run: a line, and one for all that may explain it."""
    if json:
        return
    with redirect_stdout(to):
        fit, address = width(), f"{study}/{done.run}"
        for place, text in enumerate(_lines(done)):
            head = " " * len(address) if place else address
            line = f"{head}  {text}"
            out(textwrap.fill(line, fit, subsequent_indent=" " * (len(address) + 2)) if fit else line)


def _lines(done: Comparison) -> Iterator[str]:
    from hpsearch.rerun import Sameness

    yield _result(done)
    if done.error:
        yield next((line.strip() for line in reversed(done.error.splitlines()) if line.strip()), "")
    if done.sameness is Sameness.BIT_EQUAL:
        return
    if done.engine and done.engine_now and done.engine != done.engine_now:
        yield f"trained as {done.engine} when it was stored, as {done.engine_now} now"
    if done.sameness is not Sameness.NOT_REPEATED:
        yield from done.changed
    if done.sameness is Sameness.DIFFERS and not done.changed:
        later = done.difference is not None and bool(done.difference.epoch)
        yield GROWN if later and done.engine and not done.engine.startswith("solo") else RANDOM
    elif done.sameness is Sameness.CLOSE and done.bits_promised:
        yield "it was trained as it is now, and nothing around it has changed: it should be bit-equal"


def _result(done: Comparison) -> str:
    from hpsearch.rerun import Sameness, is_loss

    worst = done.difference
    if done.sameness is Sameness.BIT_EQUAL:
        return f"{done.sameness} ({done.epochs} epoch{'s' * (done.epochs != 1)})" if done.epochs else str(done.sameness)
    if done.sameness is Sameness.NOT_REPEATED:
        return f"{done.sameness}: {done.ending}"
    if done.sameness is Sameness.CLOSE:
        assert worst is not None
        if not is_loss(worst.metric):
            return f"{done.sameness} (largest difference{_where(worst)}: {worst.metric} {_pair(worst)})"
        return f"{done.sameness} (largest relative difference {worst.relative:.1g}{_where(worst)}, {worst.metric})"
    if worst is None:
        return f"{done.sameness}: {done.ending}"
    first = "" if worst.epoch is None else f" from epoch {worst.epoch} on"
    ending = f"; {done.ending}" if done.ending else ""
    return f"{done.sameness}{first}: {worst.metric} {_pair(worst)}{ending}"


def _where(worst: Difference) -> str:
    return "" if worst.epoch is None else f" at epoch {worst.epoch}"


def _pair(worst: Difference) -> str:
    """Both numbers, with as many digits as it takes to tell them apart."""
    a, b = worst.stored, worst.now
    if a is None or b is None:
        return f"{'not' if a is None else number(a)} stored, {'none' if b is None else number(b)} now"
    digits = next((n for n in DIGITS if number(a, n) != number(b, n)), DIGITS[-1])
    return f"{number(a, digits)} stored, {number(b, digits)} now"


def _summary(found: Sequence[Comparison]) -> None:
    counts = Counter(each.sameness for each in found)
    say(", ".join(f"{count} {sameness}" for sameness, count in sorted(counts.items())))


def _tolerance(found: Sequence[tuple[str, Comparison]]) -> float:
    """The largest that was allowed."""
    return max(each.tolerance for _, each in found)


def _check(found: Sequence[tuple[str, Comparison]]) -> None:
    from hpsearch.rerun import Sameness

    bad = [address for address, each in found if each.sameness not in (Sameness.BIT_EQUAL, Sameness.CLOSE)]
    if bad:
        named = ", ".join(bad[:8]) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
        what = f"{len(bad)} of {len(found)} runs cannot be confirmed within {_tolerance(found):g}: {named}"
        raise CheckError(what, hint="what differs is above; --tolerance allows more")


_PLAIN = ("tolerance", "ending", "error", "engine", "engine_now", "changed", "seconds")


def _json(address: str, done: Comparison) -> dict[str, Any]:
    worst = done.difference
    names = ("epoch", "metric", "stored", "now", "relative")
    return {
        "run": address,
        "result": done.sameness,
        **{name: getattr(worst, name) if worst else None for name in names},
        **{name: getattr(done, name) for name in _PLAIN},
    }
