from cae_lib.data.benchmarks import FAMILIES, load_benchmark

CONTROLLED = {
    "controlled_images": ("left_of", "right_of", "on", "under"),
    "controlled_clevr": ("left_of", "right_of", "in-front_of", "behind"),
}
QUESTIONS = {
    "coco_qa_one_obj": [42, "A photo of a cup on the left", "A photo of a cup on the right"],
    "coco_qa_two_obj": [42, "A cup above a dog", "A cup below a dog"],
    "vg_qa_one_obj": [7, "A photo of a cat at the top", "A photo of a cat at the bottom"],
    "vg_qa_two_obj": [7, "A cup in front of a dog", "A cup behind a dog"],
}


def scene(subset, preposition, first="mug", second="plate"):
    name = f"{first}_{preposition}_{second}.jpeg"
    true = f"A {first} {preposition.replace('_', ' ')} a {second}"
    false = [f"A {first} {other} a {second}" for other in ("a", "b", "c")]
    return {"image_path": f"data/{subset}/{name}", "caption_options": [true, *false]}


def test_six_subsets_with_the_true_caption_first(put):
    put({"whatsup/val2017/000000000042.jpg": None, "whatsup/vg_images/7.jpg": None})
    for subset, prepositions in CONTROLLED.items():
        rows = [scene(subset, p) for p in prepositions]
        rows += [scene(subset, "left_of", "bowl", "tray")]
        put({f"whatsup/{subset}_dataset.json": rows})
        put({row["image_path"].replace("data/", "whatsup/"): None for row in rows})
    root = put({f"whatsup/{name}.json": [row] for name, row in QUESTIONS.items()})
    parts = {part.subset: part for part in load_benchmark("whatsup", root)}
    assert list(parts) == list(FAMILIES["whatsup"].published)
    item = parts["controlled_images"].items[2]
    assert item.texts[0] == "A mug on a plate" and len(item.texts) == 4 and item.truth == 0
    groups = [parts[name].items[0].group for name in QUESTIONS]
    assert groups == ["left", "above", "top", "front"]
    # Paths carry the official folder, and ids are padded in COCO only.
    paths = [part.items[-1].images[0].path for part in parts.values()]
    assert [f"{path.parent.name}/{path.name}" for path in paths] == [
        "controlled_images/bowl_left_of_tray.jpeg",
        "controlled_clevr/bowl_left_of_tray.jpeg",
        *["val2017/000000000042.jpg"] * 2,
        *["vg_images/7.jpg"] * 2,
    ]
