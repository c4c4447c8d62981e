"""One right row of each family, and where its files lie below the folder of all data sets."""

import json
from typing import Any

ARO = {
    "image_id": "1",
    "image_path": "1.jpg",
    "bbox_x": 3,
    "bbox_y": 1,
    "bbox_w": 4,
    "bbox_h": 2,
    "relation_name": "on",
    "true_caption": "the cat is on the mat",
    "false_caption": "the mat is on the cat",
}
ATTRIBUTES = ARO | {"attributes": ["red", "big"]}
SUGAR = {"filename": "1.jpg", "caption": "A cat on a\nmat.", "negative_caption": "A mat on a cat."}
VALSE = {
    "dataset": "SWiG",
    "image_file": "run_1.jpg",
    "caption": "A man chases a dog.",
    "foil": "A dog chases a man.",
    "classes": 1,
    "classes_foil": ["2"],
    "mturk": {"foil": 0, "caption": 3, "other": 0},
}
TRIPLE = {
    "id": 0,
    "filename": "1.jpg",
    "caption": "a cat on a mat",
    "caption2": "on a mat is a cat",
    "negative_caption": "a mat on a cat",
}
HALF = {
    "image": {"path": "1.jpg"},
    "triplet_type": "entity",
    "anchor": "a cat",
    "half_truth": "a cat and a dog",
    "full_truth": "a cat and a mat",
}
CHECKLIST = ["VG_100K/1.jpg", {"POS": ["brown knob"], "NEG": ["teal knob"]}]
SVO_HEADER = (
    "sentence,pos_triplet,neg_triplet,pos_url,neg_url,pos_image_id,neg_image_id,subj_neg,verb_neg,"
    "obj_neg"
).split(",")
SVO = ["A girl sits.", "girl,sit,bench", "boy,sit,bench", "u", "u", 1, 2, True, False, False]
CREPE_HEADER = ["image_id", "caption", "n", "hard_negs", "x", "y", "width", "height"]
NEGATIVES = [f"a cat, on mat's {n}" for n in range(5)]
CREPE = [7, "a cat on a mat", 4, str(NEGATIVES), "3.0", "1.0", 4, 2]
SYST_HEADER = [
    "image_id",
    "caption",
    "x",
    "y",
    "width",
    "height",
    "valid_hard_negs_atom",
    "valid_hard_negs_comp",
    "valid_hard_negs_combined",
]
SYST = ["7.0", "a cup", "1.0", "2", "4.0", "3.0", "['a dog', 'a cat']", "['a', 'b', 'c']", "['d']"]
WINOGROUND = {
    "id": 0,
    "caption_0": "an old person kisses a young person",
    "caption_1": "a young person kisses an old person",
    "image_0": "ex_0_img_0",
    "image_1": "ex_0_img_1",
    "tag": "Adjective-Age",
    "collapsed_tag": "Relation",
}
COLA_URL = "https://cs-people.bu.edu/array/data/vg_gqa_images/{}.jpg"
COLA = [COLA_URL.format(1), "a red cup on a blue plate", COLA_URL.format(2), "a blue cup"]
ORDER = {"image": "val2014/1.jpg", "caption": ["A big dog chases a small cat.", "Two dogs run."]}
QUESTION = [7, "A cup in front of a dog", "A cup behind a dog"]
CREPE_FILE = "crepe/data/prod_hard_negatives/{0}/prod_vg_hard_negs_{0}_complexity_{1}.csv"
SYST_FILE = "crepe/data/syst_hard_negatives/syst_vg_hard_negs_{}_compounds_in_{}.csv"


def crepe(kind: str = "atom", complexity: int | str = 4, *rows: list[Any]) -> dict[str, Any]:
    """A file of CREPE's productivity."""
    return {CREPE_FILE.format(kind, complexity): [CREPE_HEADER, *(rows or [CREPE])]}


def lines(file: str, *entries: dict[str, Any]) -> dict[str, str]:
    """A file of lines of JSON, the last one without a newline."""
    return {file: "\n".join(map(json.dumps, entries))}
