"""Tables of the base, the parser, retrieval and the settings; findings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cae_lib.errors import ConfigError, DataError
from cae_lib.report import base, parser, settings
from cae_lib.report.attribution_tables import deficiency_table, levelling_table, outcome_table
from cae_lib.report.claim_table import claim_table
from cae_lib.report.claims import RULES
from cae_lib.report.findings import findings
from cae_lib.report.further_findings import NOT_MEASURED, SENTENCES, further_findings
from cae_lib.report.paper import CLAIMS, NEGCLIP, TABLE1, TABLE4
from cae_lib.report.retrieval import retrieval_table
from cae_lib.report.runs import all_runs, chosen_methods, label, method_of
from cae_lib.report.verdicts import base_scores, trained_pairs, trained_runs, verdicts

BOOK = Path(__file__).resolve().parents[2] / "book"


def share(value: float, n: int = 100) -> dict:
    return {"estimate": value, "low": value - 0.02, "high": value + 0.02, "n_items": n}


def base_results(**changes) -> dict:
    final = {"object": share(0.95), "relation": share(0.6), "attribute": share(0.7),
             "attention_object": share(0.2), "attention_relation": share(0.1),
             "attention_attribute": share(0.1), "retrieval_i2t_r1": 0.4, "retrieval_t2i_r1": 0.3,
             "n_pictures": 1000, "n_captions": 5000}  # fmt: skip
    point = {k: v if isinstance(v, float) else v["estimate"] for k, v in final.items()
             if not k.startswith("n_")}  # fmt: skip
    curve = [point | {"step": step, "loss": 1.0} for step in (1, 2)]
    return {"curve": curve, "final": final | changes, "parameters": 6_100_000}


def test_the_base_is_held_to_what_was_required():
    assert {row[-1] for row in base.calibration_table(base_results()).rows} == {"yes"}
    changed = base_results(relation=share(0.51), attribute=share(0.76), retrieval_t2i_r1=0.29,
                           attention_relation=share(0.17))  # fmt: skip
    failed = [row[0] for row in base.calibration_table(changed).rows if row[-1] != "yes"]
    assert failed == ["relation choices", "attribute choices", "R@1, text to image, 1000 pictures",
                      "attention, object / relation"]  # fmt: skip


def test_the_curve_is_described(store):
    store.save("base", base_results())
    alt = base.curve_figure(base.base_record("smoke")).alt
    assert "after 2 steps choices object 95.0 %, attribute 70.0 %, relation 60.0 %" in alt
    store.save("base", {"curve": [], "final": {}, "parameters": 1})
    with pytest.raises(DataError, match="lacks curve, final"):
        base.base_record("smoke")


def test_the_parser_is_scored_by_role(store):
    role = {"precision": 0.5, "recall": None, "n_predicted": 4, "n_gold": 0}
    content = dict.fromkeys(("object", "attribute", "relation"), role)
    relation = {"on": {"precision": 1.0, "recall": 0.25, "n_predicted": 1, "n_gold": 4}}
    store.save("words", content | {"by_relation": relation, "n_captions": 260})
    record = parser.words_record("smoke")
    assert parser.parser_table(record).rows[0] == ["object", "50.0", "–", "4", "0"]
    assert "260 captions" in parser.parser_table(record).caption
    assert parser.relation_table(record).rows == [["on", "100.0", "25.0", "1", "4"]]
    store.save("words", {"object": role})
    with pytest.raises(DataError, match="lacks attribute, relation, n_captions"):
        parser.words_record("smoke")


def test_retrieval_has_both_ways_on_both_sets(store):
    store.retrieval("cae-attention", (0.0, 1.0, 1.0))
    table = retrieval_table(all_runs("smoke"), "smoke", 3)
    assert len(table.rows) == 2 * 2 * 6
    row = next(row for row in table.rows if row[1] == "CLIP-CAE (attention)")
    assert row[0] == "COCO, image to text"
    assert row[2:] == ["0.0 [0.0,\N{NO-BREAK SPACE}0.0]", "100.0", "100.0", "50"]


def test_the_sweep_is_shown_when_there_is_one(store):
    assert "No sweep is stored" in settings.sweep_table("smoke").source
    rates = [{"run": "clip-ft", "lr": lr, "recall_at_1": 0.1, "against_negatives": 0.5,
              "score": 0.3} for lr in (1e-4, 3e-4)]  # fmt: skip
    gaps = {"attention": 0.0125}
    weights = [{"run": "cae-attention", "weight": 3.0, "score": 0.4, "gaps": gaps}]
    chosen = {"lr": 3e-4, "cae-attention": 3.0}
    store.save("sweep", {"lr": rates, "weight": weights, "chosen": chosen})
    rows = settings.sweep_table("smoke").rows
    assert [row[1] for row in rows] == ["learning rate 0.0001", "**learning rate 0.0003**",
                                        "**λ 3**"]  # fmt: skip
    assert rows[-1][2:] == ["–", "–", "40.0", "attention 0.013"]
    store.save("sweep", {"lr": rates})
    with pytest.raises(DataError, match="does not hold a sweep"):
        settings.sweep_table("smoke")
    assert [row[0] for row in settings.training_table("smoke").rows][:2] == [
        "CLIP-FT", "CLIP-CAE (attention)"]  # fmt: skip


def test_tables_of_attribution(store):
    table = deficiency_table(base_scores("smoke"))
    assert table.rows[-1] == ["shows the deficiency", "yes", "yes", "yes", "yes"]
    assert "60 captions" in table.caption and "no spread over seeds" in table.caption
    rows = levelling_table(trained_runs("smoke", 3)).rows
    assert [row[:2] for row in rows[:3]] == [["attention", "CLIP"], ["attention", "CLIP-FT"],
                                             ["attention", "CLIP-CAE (attention)"]]  # fmt: skip
    assert [row[0] for row in rows[::3]] == ["attention", "GradCAM", "perturbation", "gradient"]
    assert outcome_table(trained_pairs("smoke", 3)).rows[0][-1] == "the groups are level"


def test_findings_follow_the_records(store):
    first = findings("smoke")
    assert len(first) == 7 and "all of the 4 methods" in first[0]
    assert "better than plain fine-tuning on 7 and worse on 0 of 7 families" in first[2]
    store.attribution("base", {"object": 0.1, "attribute": 0.1, "relation": 0.1})
    store.benchmarks("cae-attention", 0.5)
    second = findings("smoke")
    assert "none of the 4 methods" in second[0]
    assert "better than plain fine-tuning on 0 and worse on 7 of 7 families" in second[2]


def test_further_findings_name_what_is_measured_and_say_what_is_not(store):
    found = further_findings("smoke")
    assert list(found) == list(SENTENCES)
    assert found["ablation"] == found["blind"] == NOT_MEASURED
    assert found["significance"].startswith("Of 28 differences")


def test_names_of_runs_and_methods():
    assert label("base") == "CLIP" and label("cae-gradcam") == "CLIP-CAE (GradCAM)"
    assert label("negclip") == "NegCLIP" and label("ablation-3") == "ablation-3"
    assert label("negclip-cae-gradcam") == "NegCLIP-CAE (GradCAM)"
    assert [method_of(run) for run in ("negclip-cae-gradient", "cae-gradient", "clip-ft")] == [
        "gradient", "gradient", None]  # fmt: skip
    assert chosen_methods("gradient, attention") == ("gradient", "attention")
    with pytest.raises(ConfigError, match="unknown method gradients: expected 'all' or some of"):
        chosen_methods("gradients")


def test_the_claim_table_has_a_row_for_each_claim(store):
    found = verdicts("smoke")
    table = claim_table(found, None, "smoke")
    assert [row[0].strip("[").split("]")[0] for row in table.rows] == list(CLAIMS)
    assert table.rows[0][4] == "not run yet"
    assert claim_table(found, found, "smoke").rows[0][4] == found["C1"].ours.replace("; ", "<br>")
    assert "<br>Flickr30k image to text " in table.rows[4][3] and ":class: claims" in (
        table._repr_markdown_()
    )
    assert set(RULES) == {name for name, claim in CLAIMS.items() if claim.page}


def test_the_papers_numbers_in_the_claim_table_are_those_of_its_tables():
    gains = [row.gain for key, row in TABLE1.items() if key != "Winoground"]
    printed = CLAIMS["C3"].printed.replace("\N{MINUS SIGN}", "-")
    assert f"{min(gains):.1f} to +{max(gains):.1f} points" in printed
    assert f"up in {sum(gain > 0 for gain in gains)} of {len(gains)} known scores" in printed
    assert f"NegCLIP {NEGCLIP['ARO-R']}," in CLAIMS["C4"].printed
    for name in ("SICK-R", "STS-B"):
        _, tuned, cae = TABLE4[name, "spearman"]
        assert f"{name} {tuned} → {cae}" in CLAIMS["C6"].printed
    assert CLAIMS["C7"].source == "Fig. 3" and CLAIMS["C6"].source.startswith("Table 4<br>Spear")


def test_the_first_page_shows_every_claim_as_it_is():
    text = (BOOK / "index.md").read_text(encoding="utf-8")
    rows = {row.split("|")[1].strip(): row for row in text.splitlines() if row.startswith("| ")}
    for name, claim in CLAIMS.items():
        head = f"[{name}](experiments/{claim.page}.md)" if claim.page else name
        row = rows[head]
        assert f"| {claim.text} | {claim.source} |" in row
        for field in ("ours", "scale", "verdict"):
            assert f"{{glue}}`experiments/claims.ipynb::{name}_{field}`" in row
    further = re.findall(r"claims\.ipynb::further_(\w+)`", text)
    assert sorted(further) == sorted(SENTENCES)
    shown = re.findall(r"claims\.ipynb::(finding_\d)`", text)
    known = {f"finding_{i}" for i in range(1, 8)}
    assert known - {"finding_6", "finding_7"} <= set(shown) <= known


def names_in(path: Path) -> set[str]:
    """Functions, classes, parameters, fields and constants that a module defines."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    found = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    found |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    targets = [t for n in nodes if isinstance(n, ast.Assign) for t in n.targets]
    targets += [n.target for n in nodes if isinstance(n, ast.AnnAssign)]
    return found | {t.id for t in targets if isinstance(t, ast.Name)}


def test_the_deviations_name_parameters_that_exist():
    known = set.union(*(names_in(path) for path in (BOOK.parent / "cae_lib").rglob("*.py")))
    text = (BOOK / "deviations.md").read_text(encoding="utf-8")
    rows = [line for line in text.split(":::")[1].splitlines() if line.startswith("| ")][2:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[-2])}
    assert named and named <= known, named - known
