"""The answers of a profile under the benchmarks' own protocol and under the authors'."""

from __future__ import annotations

from cae_lib.report.benchmarks import all_answers
from cae_lib.report.protocol_tables import protocol_table


def test_protocols_average_the_same_answers_differently(store):
    store.benchmarks("clip-ft", {"sugarcrepe/replace_rel": 1.1, "*": 0.5})
    answers = all_answers("smoke", 3)
    official, authors = (protocol_table(answers, name) for name in ("official", "authors"))
    place = official.header.index("CLIP-FT")

    def cell(table, name):
        [row] = [row for row in table.rows if row[0] == f"`{name}`"]
        return float(row[place])

    assert cell(authors, "sugarcrepe/relation") == 100.0
    parts = [f"sugarcrepe/{kind}" for kind in ("replace_rel", "add_att", "replace_att", "swap_att",
                                               "add_obj", "replace_obj", "swap_obj")]  # fmt: skip
    mean = sum(part.micro for key in parts for part in answers["clip-ft"][key]) / (3 * len(parts))
    assert abs(cell(official, "sugarcrepe") - 100 * mean) < 0.051
    assert any("whatsup" in note for note in official.notes)
    assert "3 seeds" in official.caption and "own paper" in official.caption
