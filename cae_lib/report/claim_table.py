"""The claim table: claim, paper, ours at two scales, verdict; here and on the book's first page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from IPython.display import HTML

from cae_lib.report.claims import RULES, Verdict
from cae_lib.report.markup import NONE, Table, Text, unbroken
from cae_lib.report.paper import CLAIMS
from cae_lib.report.runs import setting

NOT_RUN = "not run yet"


def claim_table(
    ours: Mapping[str, Verdict], at_scale: Mapping[str, Verdict] | None, profile: str
) -> Table:
    """One row a claim.

    Args:
        ours: Verdicts of the page's profile.
        at_scale: Verdicts of the profile "paper"; None where nobody has run it.
        profile: Name of the page's profile.
    """
    rows = []
    for name, claim in CLAIMS.items():
        scale = _lines(at_scale[name].ours) if at_scale else NOT_RUN
        link = f"[{claim.id}]({claim.page}.md)" if claim.page else claim.id
        rows.append([link, claim.text, claim.source, _lines(ours[name].ours), scale,
                     ours[name].badge])  # fmt: skip
    return Table(
        name="tab-all-claims",
        caption=f"The paper's claims. Ours: {setting(profile)}; brackets are 95 % bootstrap "
        "intervals. “a to b”: the lowest and the highest difference over the attribution methods. "
        "The pages give n, seeds and averaging.",
        header=["", "claim", "the paper", f"ours, `{profile}`", "ours, `paper`", "verdict"],
        rows=rows,
        left=6,
        style="claims",
    )


def _lines(text: str) -> str:
    """A claim's numbers, each part in a line of its own."""
    return text.replace("; ", "<br>")


def reasons(ours: Mapping[str, Verdict]) -> Text:
    """Reason and rule of each claim that is tested, and the names of the others."""
    parts = []
    for name, verdict in ours.items():
        if name in RULES:
            parts.append(f"**{name}**, {verdict.badge}. {verdict.reason} *The rule.* {RULES[name]}")
    rest = [name for name in ours if name not in RULES]
    if rest:
        parts.append(f"**{', '.join(rest)}**: no page tests these yet.")
    return Text("\n\n".join(parts))


def glue_for_index(ours: Mapping[str, Verdict], at_scale: Mapping[str, Verdict] | None,
                   sentences: Sequence[str], further: Mapping[str, str]) -> None:  # fmt: skip
    """Hand numbers, verdicts and sentences to the first page.

    The keys are `C1_ours`, `C1_scale`, `C1_verdict` (a badge), `finding_1`, ..., and `further_NAME`
    for the names of `further`.
    """
    from myst_nb import glue

    for name, verdict in ours.items():
        scale = at_scale[name].ours if at_scale else NONE
        glue(f"{name}_ours", HTML(_lines(escape(unbroken(verdict.ours)))), display=False)
        glue(f"{name}_scale", HTML(_lines(escape(unbroken(scale)))), display=False)
        glue(f"{name}_verdict", HTML(verdict.badge), display=False)
    texts = {f"finding_{number}": sentence for number, sentence in enumerate(sentences, start=1)}
    texts |= {f"further_{name}": sentence for name, sentence in further.items()}
    for name, text in texts.items():
        glue(name, HTML(escape(unbroken(text))), display=False)
