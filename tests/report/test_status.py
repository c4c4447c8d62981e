"""The status page: which stored pages and records were made by the code as it is now."""

from __future__ import annotations

import json

import pytest

from cae_lib import provenance as stamps
from cae_lib.pages.check import check_notebook
from cae_lib.records import record_path
from cae_lib.report import status
from cae_lib.report.provenance import MIME, provenance


def test_a_stamp_is_read_back_by_the_status_page(book_home, monkeypatch):
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    monkeypatch.setattr(status, "present_code", lambda: {"code": "c1", "tree": stamps.TREE})
    stamp = provenance("smoke", 3)
    bundle = stamp._repr_mimebundle_()
    assert bundle[MIME]["seeds"] == 3 and bundle[MIME]["tree"] == stamps.TREE
    assert json.loads(bundle["text/plain"]) == bundle[MIME]
    output = new_output("execute_result", bundle, execution_count=1)
    page = new_notebook(cells=[new_code_cell("1", execution_count=1, outputs=[output])])
    assert check_notebook(page) == []
    path = book_home / "book" / "experiments" / "page.ipynb"
    nbformat.write(page, path)
    assert [made.state(status.present_code()) for made in status.pages("mini")] == ["current"]
    page.cells[0].outputs[0].data[MIME]["tree"] = "0" * 40
    nbformat.write(page, path)
    assert [made.state(status.present_code()) for made in status.pages("mini")] == ["stale"]
    assert "**stale**" in status.status_table(status.pages("mini"), "page")._repr_markdown_()


@pytest.mark.parametrize(
    ("content", "state"),
    [(None, "not run yet"), ("{", "cannot be read"), ('{"cells": []}', "has no stamp"),
     ('{"cells": [1]}', "cannot be read"), ("[]", "cannot be read")],
)  # fmt: skip
def test_the_status_page_survives_any_notebook(book_home, content, state):
    path = book_home / "book" / "experiments" / "page.ipynb"
    if content is not None:
        path.write_text(content)
    found = status.pages("mini")
    assert [made.state(status.present_code()) for made in found] == [state]
    assert state in status.status_table(found, "page")._repr_markdown_()


def test_the_status_page_survives_any_record(store):
    broken = store.root / "data" / "cache" / "smoke-records" / "broken.json"
    broken.write_text("{")
    found = {made.name: made.state(status.present_code()) for made in status.records("smoke")}
    assert found["broken"] == "cannot be read" and found["base/0/benchmarks"] == "unknown"
    text = status.summary([], status.records("smoke")).source
    assert "Of 0 stored pages: none." in text and "1 cannot be read" in text
    assert status.status_table([], "record").source == "There are no stored records."


@pytest.mark.parametrize(
    ("stamp", "state"),
    [({"code": "c1"}, "current"), ({"code": "c0"}, "stale"), ({"tree": "t1"}, "current"),
     ({"tree": "t0"}, "unknown"), ({"seed": 0}, "unknown"), ({}, "no stamp"), ("t1", "no stamp"),
     ({"code": "c1", "tree": "t0"}, "current"), ({"code": "c0", "tree": "t1"}, "stale")],
)  # fmt: skip
def test_a_record_is_judged_by_the_code_that_measures(home, monkeypatch, stamp, state):
    monkeypatch.setattr(status, "present_code", lambda: {"code": "c1", "tree": "t1"})
    path = record_path("clip-ft/0/retrieval", "mini")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"provenance": stamp}))
    (found,) = status.records("mini")
    assert found.state(status.present_code()) == state
    shown = status.status_table([found], "record")._repr_markdown_()
    assert ("**" + state + "**" in shown) == (state != "current") and "(hash `c1`)" in shown
