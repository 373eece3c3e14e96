"""``hpsearch verify``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.address import study_of
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out, out_json, say
from hpsearch.errors import CheckError, ObjectiveError, StoreError, StudyError

if TYPE_CHECKING:
    from hpsearch.audit import Facts, Verdict
    from hpsearch.stores.sql.audit import SqlAudit
    from hpsearch.study import Study
    from hpsearch.trial import Environment

#: breaches of one study that are written out; --json has them all
SHOWN = 20


def verify(
    study: str | None = None,
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Check the record: every rule that must hold of it, and every choice made once more. Changes nothing.

    Trials are numbered without a gap, each run has one attempt that counts, what has ended is final and follows
    from its runs, metrics belong to attempts, budgets are kept. Then the strategy is asked again with what it knew
    then, the pruner's rungs and the races of confirm are walked again: the same must come out, and looks at the
    test set must follow from races. Where library versions or the CPU are not those of the record, a difference is
    "not compared". The database is looked at too; PostgreSQL's pages only where its extension amcheck is installed,
    else they are "not checked". Exit code 5 where something does not hold, 0 where all does.

    A study that runs is read as it is now; its coordinator waits meanwhile, some seconds for 10,000 trials.

    Args:
        study: A study's name, or its beginning; all studies of the database where it is left out.
    """
    from hpsearch.stores.sql import open_archive, open_audit
    from hpsearch.verify import all_of

    audit = open_audit(common.database)
    names = audit.names()
    if study is not None and study not in names:
        names = [study_of(open_archive(common.database), study).name]
    elif study is not None:
        names = [study]
    damage, unchecked = audit.damage()
    verdicts = [_verdict(audit, name, damaged=bool(damage)) for name in names]
    breaches = list(all_of(verdicts, damage))
    if common.json:
        out_json(_json(verdicts, damage, unchecked))
    else:
        for verdict in verdicts:
            _show(verdict, quiet=common.quiet)
        for words in damage:
            _line(f"the database: {words}")
        for words in unchecked if not common.quiet else ():
            _line(f"not checked: {words}")
    if breaches:
        many = "a breach" if len(breaches) == 1 else f"{len(breaches)} breaches"
        raise CheckError(f"the record does not hold: {many}", hint="each is above; restore a copy, or please report it")
    if not verdicts and not common.json and not common.quiet:
        say("no study yet; the database is sound")


def _verdict(audit: SqlAudit, name: str, *, damaged: bool) -> Verdict:
    """Of one study; what can no longer be read is a breach too."""
    from hpsearch.audit import Verdict

    try:
        facts = audit.facts(name)
    except (CheckError, StoreError) as error:
        if isinstance(error, StoreError) and not damaged:
            raise
        verdict = Verdict(study=name)
        verdict.wrong("", "rows", "rows that can be read", error)
        return verdict
    return _checked(facts)


def _checked(facts: Facts) -> Verdict:
    from hpsearch.objective import source_hash
    from hpsearch.read import study_of as stored_study
    from hpsearch.verify import verify as check

    folder, code_hash = Path(facts.file).parent if facts.file else Path.cwd(), ""
    study: Study | None = None
    try:
        study = stored_study(facts.spec, folder)
        code_hash = source_hash(study.objective)
    except (StudyError, ObjectiveError):
        pass  # what then cannot be compared, the verdict says
    return check(facts, study, environment=partial(_environment, folder), code_hash=code_hash)


def _environment(folder: Path) -> Environment:
    from hpsearch.training.environment import environment  # torch: seconds, so only where it tells something

    return environment(folder, "cpu")


def _show(verdict: Verdict, *, quiet: bool) -> None:
    counts = f"{verdict.trials:,} trials, {verdict.runs:,} runs, {verdict.attempts:,} attempts"
    again = f"{verdict.suggestions:,} suggestions and {verdict.rulings:,} decisions recomputed"
    many = len(verdict.breaches)
    if not many and not quiet:
        out(f"✓ {verdict.study}: {counts}; {again}", style="green")
    elif many:
        out(f"✗ {verdict.study}: {many:,} breach{'es' * (many > 1)}; {counts}", style="red")
    for breach in verdict.breaches[:SHOWN]:
        _line(f"{breach.address}  {breach.rule}: expected {breach.expected}; found {breach.found}")
    if many > SHOWN:
        _line(f"and {many - SHOWN:,} more; --json names them all")
    for words in verdict.skipped if not quiet else ():
        _line(f"not compared: {words}")


def _line(words: str) -> None:
    out(textwrap.fill(words, 80, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))


def _json(verdicts: Sequence[Verdict], damage: Sequence[str], unchecked: Sequence[str]) -> dict[str, Any]:
    return {
        "holds": not damage and not any(verdict.breaches for verdict in verdicts),
        "database": list(damage),
        "database_not_checked": list(unchecked),
        "studies": [
            {
                **{name: getattr(verdict, name) for name in ("study", "trials", "runs", "attempts", "suggestions")},
                "decisions": verdict.rulings,
                "breaches": [asdict(breach) for breach in verdict.breaches],
                "not_compared": list(verdict.skipped),
            }
            for verdict in verdicts
        ],
    }
