"""The official layouts of all benchmarks: one entry each, by which `read` reads one, `data.layouts`
writes one, and `data.sources` counts one.

A benchmark whose files hold rows (JSON, lines of JSON, CSV, Parquet) takes an entry of `LAYOUTS`
and nothing else; one that differs in more names a module of its own as `loader`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cae_lib.data.benchmarks import aro, svo_probes
from cae_lib.data.benchmarks.entry import Layout


def _numbers(file: str) -> frozenset[int]:
    lines = Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines()
    return frozenset(int(n) for line in lines if not line.startswith("#") for n in line.split())


def _count(name: str, told: Callable[[tuple[str, ...]], bool]) -> Callable[[Any], dict[str, Any]]:
    """A summary that counts the items whose texts are so."""

    def summary(collector: Any) -> dict[str, Any]:
        collector.counts[name] = sum(told(item.texts) for item in collector.items)
        return {}

    return summary


_SCPP = {
    "replace_att": 788,
    "replace_obj": 1652,
    "replace_rel": 1406,
    "swap_att": 666,
    "swap_obj": 245,
}
_HALF_TRUTHS = {"coco_qwen": 509, "coco_mistral": 454, "cc3m_qwen": 474}
_UNTAGGED = _numbers("winoground_untagged.txt")
_VOC = "VOC2007/JPEGImages/{name}"
_VALSE_PICTURES = {  # in the official evaluation's own layout
    "act*": "data/actions/images_512",
    "coreference-hard": "data/coref/release_v18/test_images",
    "coreference-standard": "data/coref/release_too_many_is_this_in_color/images",
    "counting*": "data/visual7w/images",
    "existence": "data/visual7w/images",
    "foil-it": "../coco/val2014",
    "plurals": "data/plurals/test_images",
    "relations": "data/relations/test_images",
}
_VALSE_SHARED = (
    "images/{}",
    *(f"../coco/{split}/{{}}" for split in ("val2017", "val2014", "train2014")),
)
_VL_PLACES = {"location": ("margin", "center", "mid"), "size": ("large", "medium", "small")}
_VL_OBJECTS = [
    f"Object/{kind.title()}/{folder}_{value}"
    for kind, values in _VL_PLACES.items()
    for folder in (
        f"hake_{kind}/hake_obj",
        f"vg_{kind}/vg_obj",
        f"vg_{kind}/vg_subj",
        *(
            f"swig_{kind}/swig_{role}/swig_{role}"
            for role in ("agent", "destination", "item", "tool")
        ),
    )
    for value in values
]
_SYST = "data/syst_hard_negatives/syst_vg_hard_negs_{}_compounds_in_{}.csv"
_CORPORA = [
    f"{corpus}/{split}" for corpus in ("cc12m", "yfcc", "laion") for split in ("seen", "unseen")
]
_VG = ("VG_100K/{}.jpg", "VG_100K_2/{}.jpg", "images/{}.jpg")
_VG_PICTURES = "Visual Genome's, in VG_100K/ and VG_100K_2/"

LAYOUTS: dict[str, Layout] = {
    # ARO, VG-Relation and VG-Attribution (Yuksekgonul et al. 2023): which object stands where,
    # which one has which attribute. A picture is cut to its box before preprocessing.
    "aro": Layout(
        "aro",
        {"relation": 23_937, "attribution": 28_748},
        "those of the official vgr_vga_images.zip, under images/",
        "visual_genome_{file}.json",
        paper=True,
        texts="false caption",
        columns="image_id=id image_path=picture bbox_x=x bbox_y=y bbox_w=width bbox_h=height "
        "true_caption=caption false_caption=false relation_name? attributes?",
        group={"relation": "{relation_name}", "attribution": "{attributes.0}_{attributes.1}"},
        summary=aro.headline,
    ),
    # ARO, COCO-Order and Flickr30k-Order: a caption against four shuffles of its own words.
    "order": Layout(
        "",
        {"coco": 25_010, "flickr30k": 5000},
        "COCO's val2014, under coco/, and Flickr30k's flickr30k-images, under flickr30k/",
        {"coco": "coco/coco_karpathy_test.json", "flickr30k": "flickr30k/flickr30k_test.json"},
        pictures={
            "coco": ("coco/{}",),
            "flickr30k": ("flickr30k/{}", "flickr30k/flickr30k-images/{}"),
        },
        paper=True,
        sources=("coco-retrieval", "flickr30k"),
        loader="order",
    ),
    # Winoground (Thrush et al. 2022): two pictures and two captions with the same words in another
    # order. Comparisons are strict. Diwan et al. 2022 tag the items that are hard for another
    # reason than composition; `untagged` are the others, `authors` those of them that CAE's authors
    # call clean: all but number 313.
    "winoground": Layout(
        "winoground",
        {
            f"{task}{part}": n
            for part, n in {"": 400, "/untagged": 172, "/authors": 171}.items()
            for task in ("text", "image", "group")
        },
        "those of the gated hub data set facebook/winoground, images/ex_{id}_img_{0|1}.png",
        "examples.jsonl",
        "lines",
        paper=True,
        texts="caption caption_1",
        image="id",
        columns="id=number caption_0=caption caption_1 image_0=id image_1=id_1 tag? secondary_tag? "
        "num_main_preds? collapsed_tag",
        pictures=("images/{}.png", "images/{}.jpg", "images/{}"),
        group="{collapsed_tag}",
        id="id",
        only={"*/untagged": _UNTAGGED, "*/authors": _UNTAGGED - {313}, "*": ()},
        written={"secondary_tag": "", "num_main_preds": 1},
        again=("text", "image", "*/*"),
    ),
    # SugarCrepe (Hsieh et al. 2023): a COCO caption against a fluent one with one thing added,
    # replaced or swapped. The negative comes second, as in CLIP_benchmark, where argmax lets a tie
    # pass; the official script compares strictly. Keys need not be consecutive.
    "sugarcrepe": Layout(
        "sugar-crepe",
        {"add_att": 692, "add_obj": 2062, **_SCPP},
        "COCO's val2017, in coco/val2017",
        "data/{file}.json",
        "keyed",
        paper=True,
        columns="filename=picture caption negative_caption=false",
        pictures=("../coco/val2017/{}",),
        summary=_count("same_words", lambda texts: _bag(texts[0]) == _bag(texts[1])),
    ),
    # VL-CheckList (Zhao et al. 2022): a phrase about a picture against one with an object,
    # attribute or relation changed. Of rows with three of each only the first pair is scored, as in
    # the official image-text contrast; no file is capped. Rows whose texts are equal are wrong.
    "vl_checklist": Layout(
        "vl-checklist",
        dict(
            sorted(
                {
                    "Attribute/vg/action": 1892,
                    "Attribute/vg/color": 11_569,
                    "Attribute/vg/material": 2470,
                    "Attribute/vg/size": 2695,
                    "Attribute/vg/state": 941,
                    "Attribute/vaw/action": 3039,
                    "Attribute/vaw/color": None,
                    "Attribute/vaw/material": 11_835,
                    "Attribute/vaw/size": 15_321,
                    "Attribute/vaw/state": 4939,
                    "Relation/hake_action": None,
                    "Relation/swig_action": 25_150,
                    "Relation/vg/action": 12_733,
                    "Relation/vg/spatial": 30_650,
                    **dict.fromkeys(_VL_OBJECTS),
                }.items()
            )
        ),
        "those of Visual Genome (vg/VG_100K, vg/VG_100K_2), SWiG (swig/) and HAKE (hake/)",
        "data/{file}.json",
        paper=True,
        texts="false caption",
        columns="0=picture 1.POS.0=caption 1.NEG.0=false",
        open=True,
        pictures={
            "*/hake_*": ("hake/{}",),
            "*/swig_*": ("swig/{}",),
            "*/vg[/_]*": ("vg/{}",),
            "*/vaw/*": ("vg/{}",),
        },
    ),
    # VALSE (Parcalabescu et al. 2022): a caption against a foil, for linguistic phenomena from
    # plurals to exchanged roles. As its authors ask, only items count that two of three annotators
    # found valid; among the others are all whose foil equals the caption.
    "valse": Layout(
        "valse",
        {
            "actant-swap": 949,
            "action-replacement": 648,
            "coreference-hard": 104,
            "coreference-standard": 708,
            "counting-adversarial": 691,
            "counting-hard": 868,
            "counting-small-quant": 900,
            "existence": 505,
            "foil-it": 943,
            "plurals": 851,
            "relations": 535,
        },
        "those of the sets that each item's field 'dataset' names",
        "data/{file}.json",
        "keyed",
        paper=True,
        texts="false caption",
        columns="dataset original_split dataset_idx linguistic_phenomena=subset "
        "image_file=picture caption foil=false classes classes_foil mturk",
        pictures={
            name: (f"{folder}/{{}}", *_VALSE_SHARED) for name, folder in _VALSE_PICTURES.items()
        },
        least=("mturk.caption", 2),
        written={"original_split": "test", "mturk": {"foil": 0, "caption": 3, "other": 0}},
        listed={
            "actant-swap": 1042,
            "action-replacement": 779,
            "coreference-hard": 141,
            "coreference-standard": 916,
            "counting-adversarial": 756,
            "counting-hard": 1000,
            "counting-small-quant": 1000,
            "existence": 534,
            "foil-it": 1000,
            "plurals": 1000,
            "relations": 614,
        },
    ),
    # SVO-Probes (Hendricks and Nematzadeh 2021): one sentence, a picture that fits, and one with
    # another subject, verb or object. Rows with no flag or several are "mixed" and count in the
    # micro average only. The official match accuracy is `evaluation.choice.matches`.
    "svo_probes": Layout(
        "svo-probes",
        {"all": None},
        "downloads of the file's URLs, images/{image id}.jpg; many URLs are dead",
        "svo_probes.csv",
        "csv",
        paper=True,
        texts="caption",
        image="id",
        columns="sentence=caption pos_triplet? neg_triplet? pos_url=picture? neg_url=picture_1? "
        "pos_image_id=id neg_image_id=id_1 subj_neg verb_neg obj_neg",
        pictures=("images/{}.jpg", "images/{}.png", "images/{}.jpeg", "images/{}"),
        group=svo_probes.kind,
        summary=svo_probes.headline,
        again=("match",),
    ),
    # CREPE (Ma et al. 2023), productivity: the true caption of a part of a picture among hard
    # negatives, by complexity.
    "crepe": Layout(
        "crepe",
        {"atom": 16_727, "swap": 6652, "negate": 16_336},
        _VG_PICTURES,
        "data/prod_hard_negatives/{file}/prod_vg_hard_negs_{file}_complexity_{n}.csv",
        "csv",
        columns="image_id=id caption n n_objects n_relations n_attributes n_connected_components "
        "hard_negs=all_false x y width height",
        image="id",
        pictures=_VG,
        fields={"headline": "macro", "rule": "mean over complexities, R@1 among 6"},
        paper=True,
        loader="crepe",
    ),
    # What'sUp (Kamath et al. 2023): where one thing stands, in photographs taken for the purpose,
    # COCO and Visual Genome.
    "whatsup": Layout(
        "whatsup",
        {
            "controlled_images": 412,
            "controlled_clevr": 408,
            "coco_qa_one_obj": 2247,
            "coco_qa_two_obj": 440,
            "vg_qa_one_obj": 1160,
            "vg_qa_two_obj": 291,
        },
        "those of the official archives controlled_images, controlled_clevr, val2017 and vg_images",
        {"controlled_*": "{file}_dataset.json", "*": "{file}.json"},
        pictures={
            "controlled_*": ("{}", "data/{}"),
            "coco_*": ("val2017/{:0>12}.jpg",),
            "vg_*": ("vg_images/{}.jpg",),
        },
        loader="whatsup",
    ),
    # COLA (Ray et al. 2023), multi-object: attributes bound to the right one of two pictures; each
    # caption is strictly closer to its own one. The single-object sets are `cola.load_single`.
    "cola": Layout(
        "cola",
        {"multi": 210},
        "Visual Genome's (as GQA has them), CLEVR's or PACO's, in images/",
        "data/COLA_multiobjects_matching_benchmark.json",
        texts="caption caption_1",
        task="image",
        columns="0=picture 1=caption 2=picture_1 3=caption_1",
        pictures=tuple(
            f"{folder}/{{name}}"
            for folder in ("images", "vg_gqa_images", "../vg/VG_100K", "../vg/VG_100K_2", ".")
        ),
        fields={"rule": "mean over items, image score of 2 x 2"},
        summary=_count("identical", lambda texts: texts[0] == texts[1]),
    ),
    # CREPE, systematicity: a file for each pretraining set, which says something about models that
    # were trained on that set only; OpenAI's is not among them.
    "crepe_systematicity": Layout(
        "crepe",
        {f"{name}/{kind}": None for name in _CORPORA for kind in ("atom", "comp")},
        _VG_PICTURES,
        {f"{name}/*": _SYST.format(*name.split("/")[::-1]) for name in _CORPORA},
        "csv",
        pictures=_VG,
        fields={"rule": "mean over items, R@1"},
        sources=("crepe",),
        loader="crepe",
    ),
    # SugarCrepe++ (Dumpala et al. 2024): two captions that say the same of a picture, and a false
    # one. ITT (image to text): both are closer to the picture than the false one. TOT (text only):
    # they are closer to each other than each to the false one. All strictly.
    "sugarcrepe_pp": Layout(
        "sugarcrepe-pp",
        {f"{task}/{name}": n for task in ("itt", "tot") for name, n in _SCPP.items()},
        "COCO's val2017, in coco/val2017",
        "data/{file}.json",
        texts="caption caption_1 false",
        columns="id=number? filename=picture caption caption2=caption_1 negative_caption=false",
        pictures=("../coco/val2017/{}",),
        summary=_count("unwinnable", lambda texts: texts[2] in texts[:2]),
        again=("tot/*",),
    ),
    # Half-Truths (Bora et al. 2026, CS-CLIP): a true beginning, the anchor, which must beat the
    # same with something false added; with something true added it must be beaten (`ordered`).
    "half_truths": Layout(
        "half-truths",
        {f"{name}{end}": n for name, n in _HALF_TRUTHS.items() for end in ("", "/ordered")},
        "in the files themselves",
        "data/{file}.{ending}",
        "lines",
        texts={"*/ordered": "caption_1 caption false", "*": "caption false"},
        columns="id=number? image.path=picture triplet_type anchor=caption half_truth=false "
        "full_truth=caption_1",
        group="{triplet_type}",
        open=True,
        written={"ending": "json"},
        again=("*/ordered",),
    ),
    # BiVLC (Miranda et al. 2024): SugarCrepe's captions with a generated picture for each false
    # one, so two pictures and two captions. The paper calls the scores I2T, T2I and group.
    "bivlc": Layout(
        "bivlc",
        dict.fromkeys(("text", "image", "group"), 2933),
        "in the files themselves",
        "data/{shard}.parquet",
        texts="caption caption_1",
        columns="image.path=picture negative_image.path=picture_1 caption "
        "negative_caption=caption_1 type subtype",
        group="{type}_{subtype}",
        again=("text", "image"),
    ),
    # NegBench (Alhamoud et al. 2025), questions of four captions: what a picture shows or lacks.
    # Sizes are inferred from the accuracies in the authors' tables. The official argmax takes the
    # first of equal captions, which is the right one in both files. Paths are of another machine.
    "negbench": Layout(
        "negbench",
        {"coco": 5914, "voc2007": 5031},
        "COCO's val2017, in coco/val2017, and VOC2007's test set, in VOCdevkit/",
        {
            "coco": "images/COCO_val_mcq_llama3.1_rephrased.csv",
            "voc2007": "images/VOC2007_mcq_llama3.1_rephrased.csv",
        },
        "csv",
        columns="image_path=picture correct_answer=truth caption_0 caption_1 caption_2 caption_3 "
        "correct_answer_template",
        texts="caption_0 caption_1 caption_2 caption_3",
        pictures={
            "coco": ("../coco/val2017/{name}", "coco/val2017/{name}", "images/{name}"),
            "voc2007": (f"VOCdevkit/{_VOC}", _VOC, "images/{name}"),
        },
        group="{correct_answer_template}",
        fields={"rule": "mean over items, a tie is wrong (officially right)"},
    ),
    # MMVP-VLM (Tong et al. 2024): pairs of pictures that CLIP's image tower sees alike, of nine
    # visual patterns, with a statement for each. The official score is `image`.
    "mmvp_vlm": Layout(
        "mmvp-vlm",
        dict.fromkeys(("image", "text", "group"), 135),
        "those of the official repository, in MLLM_VLM Images/",
        "Questions.csv",
        "csv",
        pictures=("MLLM_VLM Images/{}.jpg",),
        listed={"image": 270},
        fields={"headline": "macro", "rule": "mean over patterns"},
        loader="mmvp_vlm",
        again=("text", "group"),
    ),
}
"""All benchmarks, in the order in which they are read."""


def _bag(caption: str) -> list[str]:
    return sorted(re.findall(r"[a-z0-9']+", caption.lower()))
