"""``hpsearch importance``."""

from __future__ import annotations

import textwrap
from typing import Annotated

from cyclopts import Parameter

from hpsearch import shapes
from hpsearch.address import study_of
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out, out_json, print_table, printable, say
from hpsearch.gain import INDEPENDENT, more_trials
from hpsearch.importance import Importances, Share
from hpsearch.profile import Edge, edges_of, profile_of


def importance(
    study: str,
    /,
    *,
    resamples: Annotated[int, Parameter(show_default=True)] = 50,
    common: Common = COMMON,
) -> None:
    """Say which hyperparameters mattered, how sure that is, and where the best trial lies at the edge of a range.

    Args:
        study: A study's name, or its beginning.
        resamples: How often the trials are drawn anew for the intervals.
    """
    from hpsearch.errors import UsageError
    from hpsearch.importance import importances
    from hpsearch.read import space_of
    from hpsearch.stores.sql import open_archive
    from hpsearch.trial import Direction

    if not 2 <= resamples <= 10_000:
        raise UsageError(f"--resamples: {resamples} must be from 2 to 10000")
    archive = open_archive(common.database)
    summary = study_of(archive, study)
    trials, direction = archive.trials(summary.name), Direction(summary.spec["direction"])
    space = space_of(summary.spec)
    found = importances(space, trials, direction, resamples=resamples)
    edges = edges_of(space, trials, direction)
    gain = more_trials(trials, direction, independent=summary.spec["strategy"]["name"] in INDEPENDENT)
    if common.json:
        profiles = [profile_of(name, p, trials, direction) for name, p in space.searched.items()]
        out_json(shapes.importance(summary.name, found, profiles, edges, gain))
        return
    _print_shares(found)
    for edge in edges:
        _print_edge(edge)
    if gain is not None:
        out(f"\n{_wrapped(gain.words)}")
    if found.ped_anova and not common.quiet:
        say(_wrapped("PED-ANOVA: what sets the best tenth apart; fANOVA: what explains the whole range."), style="dim")


def _print_shares(found: Importances) -> None:
    if found.reason:
        out(f"no importances: {found.reason}")
        return
    whole = {share.name: share for share in found.fanova}
    rows = [[share.name, *_cells(share), *_cells(whole[share.name])] for share in found.ped_anova]
    print_table(["param", "PED-ANOVA", "90 % interval", "fANOVA", "90 % interval"], rows)
    of = f"{found.n:,} of {found.n_usable:,}" if found.n < found.n_usable else f"{found.n}"
    words = f"{of} trials, {found.resamples} resamples"
    out(words + (f"; fANOVA on {found.n_fanova} of them" if found.n_fanova < found.n else ""), style="dim")


def _cells(share: Share) -> list[str]:
    return [f"{share.share:.2f}", f"{share.low:.2f} … {share.high:.2f}"]


def _print_edge(edge: Edge) -> None:
    out(f"\nat the edge  {printable(edge.name)}", style="yellow")
    out(_wrapped(edge.words))
    out(f"  try: {edge.suggestion}")


def _wrapped(text: str) -> str:
    return textwrap.fill(printable(text), 80, break_long_words=False, break_on_hyphens=False)
