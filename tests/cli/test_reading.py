"""list, status, show, best, compare, logs, export, delete, stop, schema, completion, init on a finished study."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from hpsearch.cli.show import decision_lines
from hpsearch.read import read_study
from hpsearch.strategy import Decision
from hpsearch.written import number
from tests.cli.conftest import shell


def test_list(folder: Path, hpsearch) -> None:
    ended = hpsearch("list")
    assert (ended.code, ended.err) == (0, "")
    head, *rows = ended.out.splitlines()
    assert head.split()[:3] == ["study", "state", "best"]
    assert {row.split()[0] for row in rows} == {"toy", "other"}
    assert "small" in ended.out
    assert [line.split()[0] for line in hpsearch("list", "--tag", "small").out.splitlines()[1:]] == ["toy"]
    assert hpsearch("ls", "--state", "failed").err == "no study fits\n"
    assert {study["study"] for study in json.loads(hpsearch("list", "--json").out)["studies"]} == {"toy", "other"}


def test_status(folder: Path, hpsearch) -> None:
    assert "nothing is running" in hpsearch("status").err
    lines = dict(line.split(maxsplit=1) for line in hpsearch("status", "toy").out.splitlines())
    assert lines["state"] == "complete"
    assert "failed 3" in lines["trials"]
    assert lines["best"].startswith("#1 loss 0.005")
    found = json.loads(hpsearch("status", "toy", "--json").out)
    assert (found["schema"], found["trials"]) == (2, {"complete": 5, "diverged": 2, "failed": 3})
    assert hpsearch("status", "toy", "--watch").out.startswith("toy   complete")


def test_show_study(folder: Path, hpsearch) -> None:
    ended = hpsearch("show", "toy")
    assert (ended.code, ended.err) == (0, "")
    for words in ("toy", "grid", "loss, minimize", "0, 1", "complete 5 · diverged 2 · failed 3", "#1", "failed"):
        assert words in ended.out
    assert "ValueError: [red]no\\x1b[2J luck" in ended.out
    assert "\x1b" not in ended.out
    assert hpsearch("show", "toy", "--yaml").out == (folder / "toy.yaml").read_text()
    assert json.loads(hpsearch("show", "toy", "--json").out)["state"] == "complete"


def test_list_and_show_name_the_pruner(folder: Path, hpsearch) -> None:
    changes = ("--set", "pruner=successive_halving", "--set", "n_trials=6", "--name", "pruned")
    ended = hpsearch("run", "other.yaml", *changes, "--on", "inline", "--progress", "none")
    assert ended.code == 0
    assert "study pruned   random + successive_halving, 6 trials" in ended.err
    rows = {row.split()[0]: row for row in hpsearch("list").out.splitlines()}
    assert "random + successive_halving" in rows["pruned"]
    assert "+" not in rows["other"]
    assert "pruner    successive_halving\n" in hpsearch("show", "pruned").out
    assert "pruner" not in hpsearch("show", "other").out
    assert json.loads(hpsearch("show", "pruned", "--json").out)["pruner"] == "successive_halving"
    assert json.loads(hpsearch("show", "other", "--json").out)["pruner"] is None


def test_show_trial_with_its_runs_and_curves(folder: Path, hpsearch) -> None:
    text = hpsearch("show", "toy/0").out
    assert "toy/0 (baseline)" in text
    assert "x 0.25" in text
    rows = [line.split() for line in text.splitlines() if "█" in line]
    assert [row[0] for row in rows] == ["0", "1"]
    assert rows[0][-1] == "█▃▁▁"
    found = json.loads(hpsearch("show", "toy/0", "--json").out)
    assert found["params"] == {"x": 0.25, "mode": "plain", "eps-1": 1e-05}
    assert found["runs"][1]["curves"]["other"] == {"epochs": [0, 1, 2, 3], "values": [0.0, 1.0, 2.0, 3.0]}


def test_show_failed_trial_with_its_traceback(folder: Path, hpsearch) -> None:
    trials = json.loads(hpsearch("compare", *(f"toy/{k}" for k in range(10)), "--json").out)["trials"]
    failed = next(trial for trial in trials if trial["state"] == "failed")
    assert failed["params"]["mode"] == "[bold]boom\x1b[31m"
    text = hpsearch("show", failed["trial"]).out
    assert "Traceback" in text
    assert "raise ValueError" in text
    assert "[bold]boom\\x1b[31m" in text
    assert "\x1b" not in text
    text = hpsearch("show", f"{failed['trial']}/1").out
    assert "python" in text
    assert "ValueError" in text


def test_show_hides_what_is_secret(folder: Path, hpsearch) -> None:
    secret = "postgresql://u:CANARY@db/x HF_TOKEN=CANARY-CANARY"
    with contextlib.closing(sqlite3.connect(folder / "hpsearch.db")) as db, db:
        db.execute("UPDATE run SET error = ?, reason = ? WHERE state = 'failed'", (secret, secret))
        (number,) = db.execute("SELECT trial FROM run WHERE state = 'failed' AND seed = 1").fetchone()
    assert hpsearch("note", "toy", secret).code == 0
    for address in ("toy", f"toy/{number}", f"toy/{number}/1"):
        for options in ((), ("--json",)):
            text = hpsearch("show", address, *options).out
            assert "CANARY" not in text
            assert "postgresql://u:***@db/x HF_TOKEN=***" in text


def test_show_run(folder: Path, hpsearch) -> None:
    text = hpsearch("show", "toy/0/1").out
    assert "best 3, last 3" in text
    assert {line.split()[0] for line in text.splitlines() if "█" in line} == {"loss", "other"}
    assert len(json.loads(hpsearch("show", "toy/0/1", "--json").out)["runs"]) == 1


def test_notes_and_tags_are_shown(folder: Path, hpsearch) -> None:
    assert hpsearch("note", "toy/0", "[red]odd\x1b[2J").err == "noted; hpsearch show toy/0\n"
    assert json.loads(hpsearch("note", "toy/0/1", "seed 1", "--json").out)["address"] == "toy/0/1"
    assert hpsearch("tag", "toy", "paper", "-q").err == ""
    assert json.loads(hpsearch("tag", "toy/#1", "best", "--json").out) == {
        "schema": 2,
        "address": "toy/1",
        "text": "best",
    }
    study, trial, run = (hpsearch("show", address).out for address in ("toy", "toy/0", "toy/0/1"))
    for text in (study, trial):
        assert "note toy/0: [red]odd\\x1b[2J\n" in text
    assert [("note toy/0/1: seed 1" in text, "toy/0:" in text) for text in (trial, run)] == [
        (True, True),
        (True, False),
    ]
    assert "tag toy/1: best" in study
    assert [line.split()[1:] for line in study.splitlines() if line.startswith("tags")] == [["small", "paper"]]
    assert [line.split()[0] for line in hpsearch("list", "--tag", "paper").out.splitlines()[1:]] == ["toy"]
    ended = hpsearch("note", "toy/77", "odd")
    assert (ended.code, ended.err.startswith("error: toy has no trial 77")) == (3, True)


def test_best_is_ranked_and_becomes_a_study_file(folder: Path, hpsearch) -> None:
    ended = hpsearch("best", "toy", "-k", "3")
    assert ended.code == 0
    ranked = [line.split() for line in ended.out.splitlines()[1:4]]
    values = [float(row[1]) for row in ranked]
    assert values == sorted(values)
    assert ended.out.splitlines()[-1].split()[0] == ranked[0][0]
    (folder / "again.yaml").write_text(hpsearch("best", "toy", "--yaml").out)
    study = read_study(folder / "again.yaml")
    assert (study.name, study.seeds, study.baselines) == ("toy-1", (0, 1), ())
    ended = shell(folder, "run", "again.yaml", "--on", "inline", "--json", "-q")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    best = json.loads(hpsearch("best", "toy", "--json").out)["best"][0]
    assert found["trials"] == {"complete": 1}
    assert found["best"]["params"] == best["params"]
    assert found["best"]["loss"] == {"mean": best["value"], "sd": best["sd"], "n": 2}


def test_a_setting_outside_the_space_becomes_a_study_file_too(folder: Path, hpsearch) -> None:
    hpsearch("run", "other.yaml", "--name", "far", "--set", "baseline={x: 7, mode: plain}", "--on", "inline", "-q")
    text = hpsearch("show", "far/0", "--yaml").out
    assert '"x": 7' in text


def test_compare_studies(folder: Path, hpsearch) -> None:
    ended = hpsearch("compare", "toy", "other")
    assert ended.code == 0
    assert [line.split()[0] for line in ended.out.splitlines()[:3]] == ["study", "toy", "other"]
    assert "different seeds" in ended.err
    assert "on the search's own seeds; a trial chosen by them looks better than it is" in ended.err
    assert "params of the best" in ended.out
    rows = {row["study"]: row for row in json.loads(hpsearch("compare", "toy", "other", "--json").out)["studies"]}
    assert (rows["toy"]["diverged"], rows["toy"]["failed"], rows["other"]["trials"]) == (2, 3, 3)
    assert rows["toy"]["best"]["trial"] == 1


def test_compare_studies_says_that_their_code_differs(folder: Path, hpsearch) -> None:
    assert "code, data and machine" not in hpsearch("compare", "toy", "other").out
    (folder / "train.py").write_text((folder / "train.py").read_text() + "# changed\n")
    assert hpsearch("run", "other.yaml", "--name", "later", "--on", "inline", "-q").code == 0
    lines = (
        hpsearch("compare", "other", "later").out.split("\ncode, data and machine, where they differ\n")[1].splitlines()
    )
    assert lines[0].split() == ["param", "other", "later"]
    name, before, after = lines[1].split()
    assert (name, len(before), len(after), before != after) == ("code", 12, 12, True)


def test_every_table_of_values_has_their_interval_and_says_how_it_was_made(folder: Path, hpsearch) -> None:
    head, *rows = hpsearch("best", "toy", "-k", "1").out.splitlines()
    assert " ".join(head.split()).startswith("trial loss ± sd n 95 % interval (t)")
    sides = json.loads(hpsearch("show", "toy", "--json").out)["interval"]
    ends = f"{number(sides['low'])} to {number(sides['high'])}"
    assert ends in rows[0]
    for words in (
        ["show", "toy"],
        ["show", "toy/1"],
        ["list"],
        ["compare", "toy", "other"],
        ["compare", "toy/1", "toy/0"],
    ):
        text = hpsearch(*words).out
        assert "95 % interval (t)" in text
        assert ends in text, words
    for words in (["compare", "toy", "other"], ["compare", "toy/1", "toy/0"]):
        text = hpsearch(*words, "--interval", "bootstrap").out
        assert "95 % interval (bootstrap)" in text
        assert ends not in text
    hpsearch("report", "toy")
    page = (folder / "toy.html").read_text("utf-8")
    assert "<th>95 % interval (t)</th>" in page
    low, high = (f"{sides[end]:.4g}" for end in ("low", "high"))
    assert f"<td>{low} to {high}</td>" in page


def test_compare_trials(folder: Path, hpsearch) -> None:
    text = hpsearch("compare", "toy/0", "toy/2").out
    assert "seed 0" in text
    assert "x" in [line.split()[0] for line in text.splitlines()[4:] if line]
    assert hpsearch("compare", "toy/0", "toy").code == 2
    assert "none" in hpsearch("compare", "toy/0", "toy/0").out


def test_compare_says_in_words_that_two_seeds_show_nothing(folder: Path, hpsearch) -> None:
    ended = hpsearch("compare", "toy/0", "toy/1")
    assert "toy/0 against toy/1: not shown: 2 seeds can show nothing" in ended.out
    assert "on the search's own seeds" in ended.err
    pair = json.loads(hpsearch("compare", "toy/0", "toy/1", "--json").out)["verdicts"][0]
    assert (pair["n"], pair["beats"], pair["min_p"]) == (2, False, 0.5)
    assert pair["difference"] < 0


def test_compare_requires_better(folder: Path, hpsearch) -> None:
    assert hpsearch("compare", "toy/0", "toy/1", "--require", "better").code == 5
    ended = hpsearch("compare", "toy/0", "toy/0", "--require", "better")
    assert (ended.code, "not shown" in ended.err) == (5, True)
    assert hpsearch("compare", "toy", "other", "--require", "better").code == 5
    assert hpsearch("compare", "toy/0", "toy/1", "--alpha", "2").code == 2


def test_compare_by_another_metric(folder: Path, hpsearch) -> None:
    ended = hpsearch("compare", "toy/0", "toy/1", "--metric", "other", "--direction", "maximize")
    assert "other, differences on common seeds" in ended.out
    pairs = hpsearch("compare", "toy/0", "toy/1", "--metric", "other", "--direction", "maximize", "--json").out
    assert json.loads(pairs)["trials"][0]["values"] == {"0": 3.0, "1": 3.0}
    assert hpsearch("compare", "toy/0", "toy/1", "--metric", "other").code == 2
    missing = hpsearch("compare", "toy/0", "toy/1", "--metric", "nope", "--direction", "maximize")
    assert (missing.code, "it has loss, other" in missing.err) == (3, True)


def test_compare_studies_at_equal_budget(folder: Path, hpsearch) -> None:
    text = hpsearch("compare", "toy", "other").out
    assert "loss, best so far at equal budget: 3 trials" in text
    assert "toy is ahead of other after 3 trials with probability" in text
    assert max(map(len, text.splitlines())) <= 110
    told = json.loads(hpsearch("compare", "toy", "other", "--json").out)
    assert [search["n"] for search in told["searches"]] == [3, 3]
    assert 0 <= told["ahead"][0]["probability"] <= 1
    assert told["searches"][0]["band"]["method"] == "resampled"
    assert "was the search enough?\ntoy: Going by the last doubling of the 9 trials" in text
    more = {row["study"]: row["more"] for row in told["studies"]}
    assert (more["toy"]["more"], more["other"]) == (9, None)
    assert more["toy"]["words"] in " ".join(text.split())


def test_importance(folder: Path, hpsearch) -> None:
    ended = hpsearch("run", "other.yaml", "--name", "more", "--set", "n_trials=24", "--set",
                     "search_space={x: {uniform: [0.31, 0.8]}, z: {uniform: [0, 1]}, mode: plain}",
                     "--set", "baseline=false", "--on", "inline", "-q")  # fmt: skip
    assert ended.code == 0
    ended = hpsearch("importance", "more", "--resamples", "4")
    assert ended.code == 0
    head, first, *_ = ended.out.splitlines()
    assert head.split()[:2] == ["param", "PED-ANOVA"]
    assert first.split()[0] == "x"
    assert "24 trials, 4 resamples" in ended.out
    assert "at the low end of 0.31 … 0.8" in ended.out
    assert "try: x: {uniform: [0.06" in ended.out
    assert "Going by the last doubling of the 24 trials, over all orders, another 24" in ended.out
    assert max(map(len, (ended.out + ended.err).splitlines())) <= 80
    found = json.loads(hpsearch("importance", "more", "--resamples", "4", "--json").out)
    assert [edge["name"] for edge in found["edges"]] == ["x"]
    assert found["fanova"][0]["name"] == "x"
    assert {profile["name"] for profile in found["profiles"]} == {"x", "z"}
    assert hpsearch("importance", "other").out.startswith("no importances: one hyperparameter")
    assert hpsearch("importance", "other", "--resamples", "1").code == 2


def test_report(folder: Path, hpsearch) -> None:
    ended = hpsearch("report", "toy")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith("wrote toy.html (")
    text = (folder / "toy.html").read_text("utf-8")
    assert "The best trial is #1" in text
    assert "3 of 10 trials failed" in text
    found = json.loads(hpsearch("report", "toy", "-o", "r.html", "--json").out)
    assert (found["file"], found["bytes"]) == ("r.html", (folder / "r.html").stat().st_size)
    assert hpsearch("report", "toy", "-o", "no/r.html").code == 2


def test_logs(folder: Path, hpsearch) -> None:
    ended = hpsearch("logs", "toy/0/1")
    assert "training 0.25 with seed 1" in ended.out
    ended = hpsearch("logs", "toy/0")
    assert "training 0.25 with seed 0" in ended.out
    assert "toy/0/1" in ended.err
    assert hpsearch("logs", "toy/0", "-f").code == 2
    assert "training" in hpsearch("logs", "toy/0/0", "-f").out
    assert hpsearch("logs", "toy").code == 2
    ended = hpsearch("logs", "toy/0", "--files", "elsewhere")
    assert ended.code == 3
    assert "--files" in ended.err


def test_export(folder: Path, hpsearch) -> None:
    assert hpsearch("export", "toy").err == "wrote 20 rows to toy.csv\n"
    assert (folder / "toy.csv").read_text().count("\n") == 21
    assert hpsearch("export", "toy", "-o", "t.json").code == 0
    assert len(json.loads((folder / "t.json").read_text())) == 20
    ended = hpsearch("export", "toy", "-o", "t.xlsx")
    assert ended.code == 2
    assert ".parquet" in ended.err
    assert hpsearch("export", "toy", "-o", "no/where.csv").code == 2
    assert json.loads(hpsearch("export", "toy", "--curves", "--json").out)["file"] == "toy-curves.csv"


def test_stop_says_that_nothing_runs(folder: Path, hpsearch) -> None:
    ended = hpsearch("stop", "toy")
    assert (ended.code, ended.err) == (0, "toy is not running (complete)\n")


def test_delete(folder: Path, hpsearch) -> None:
    assert "--yes" in hpsearch("delete", "other").err
    assert hpsearch("delete", "oth", "--yes").code == 2
    assert hpsearch("show", "other").code == 0
    assert hpsearch("delete", "other", "--yes").err.startswith("removed other; its files are still in ")
    assert hpsearch("show", "other").code == 3
    assert hpsearch("delete", "other", "--yes").code == 3


def test_schema(tmp_path: Path, hpsearch) -> None:
    schema = json.loads(hpsearch("schema").out)
    assert "search_space" in schema["properties"]
    assert hpsearch("schema", "-o", str(tmp_path / "s.json")).code == 0
    assert json.loads((tmp_path / "s.json").read_text()) == schema
    assert hpsearch("schema", "-o", str(tmp_path / "no" / "s.json")).code == 2


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_completion(kind: str, hpsearch) -> None:
    ended = hpsearch("completion", kind)
    assert ended.code == 0
    assert all(word in ended.out for word in ("hpsearch", "compare", "--workers" if kind != "fish" else "workers"))


def test_completion_is_installed(tmp_path: Path) -> None:
    ended = shell(tmp_path, "completion", "bash", "--install")
    assert ended.code == 0, ended.err
    file = Path(ended.err.split()[1].rstrip(";"))
    assert file.is_relative_to(tmp_path)
    assert "hpsearch" in file.read_text()


@pytest.mark.parametrize("template", ["mlp", "function"])
def test_init_writes_a_study_that_can_be_read(template: str, tmp_path: Path, hpsearch) -> None:
    place = tmp_path / "_my study!"
    ended = hpsearch("init", str(place), "--template", template)
    assert ended.code == 0
    study = read_study(place / "study.yaml")
    assert study.name == "my-study-"
    compile((place / "train.py").read_text(), "train.py", "exec")
    before = (place / "study.yaml").read_text()
    assert hpsearch("init", str(place)).code == 2
    assert (place / "study.yaml").read_text() == before


def test_decisions_taken_together_share_a_line() -> None:
    taken = [Decision(kind="prune", subject=str(n), reason="best 1 of 3 at epoch 1") for n in (4, 5)]
    taken += [
        Decision(kind="zoom", subject="lr", reason="in", batch=1),
        Decision(kind="prune", subject="7", reason="x"),
    ]
    assert list(decision_lines(taken)) == [
        "after batch 0  prune 2 trials: best 1 of 3 at epoch 1",
        "after batch 1  zoom lr: in",
        "after batch 0  prune 7: x",
    ]
