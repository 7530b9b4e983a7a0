"""lmms-eval's built-in tasks over a few rows of our own, in the columns that each task's code reads."""

import io
import itertools
from pathlib import Path
from typing import Any

from PIL import Image

from adallava.tasks.scenes import scene_sample

Row = dict[str, Any]


def write_built_in(folder: Path, built_in: str, rows: list[Row], *, split: str, name: str, lines: str = "") -> Path:
    """Write rows, and a task that is the built-in one but for its data; return the folder for `--include_path`.

    Args:
        folder: to write to.
        built_in: path of a YAML below lmms-eval's tasks.
        rows: of the data; a column `image` holds an encoded picture, or None.
        split: that the task reads.
        name: of the new task.
        lines: of YAML, to change more.
    """
    import datasets
    import lmms_eval.tasks

    folder.mkdir(parents=True, exist_ok=True)
    data = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    data.to_parquet(str(folder / f"{name}.parquet"))
    (folder / f"{name}.yaml").write_text(
        f"include: {Path(lmms_eval.tasks.__file__).parent / built_in}\n"
        f"task: {name}\n"
        "dataset_path: parquet\n"
        "dataset_name: null\n"
        "dataset_kwargs:\n"
        "  data_files:\n"
        f"    {split}: {folder / f'{name}.parquet'}\n"
        f"{lines}"
    )
    return folder


def _picture(index: int) -> Row:
    scene, _ = scene_sample("test", index)
    file = io.BytesIO()
    Image.fromarray(scene.image).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def _asked(index: int) -> Row:
    return {"question": scene_sample("test", index)[1].text, "image": _picture(index)}


def _answer(index: int) -> str:
    return scene_sample("test", index)[1].answer


def _textvqa(index: int) -> Row:
    return {**_asked(index), "question_id": index, "answers": [_answer(index)] * 10, "ocr_tokens": ["STOP"]}


def _gqa(index: int) -> Row:
    return {**_asked(index), "id": str(index), "imageId": f"n{index}", "answer": _answer(index)}


def _yes_no(index: int) -> int:
    """Return the scene of the index-th question that is answered by yes or no."""
    places = (place for place in itertools.count() if _answer(place) in ("yes", "no"))
    return next(itertools.islice(places, index, None))


def _pope(index: int) -> Row:
    place = _yes_no(index)
    return {**_asked(place), "question_id": str(index), "answer": _answer(place), "category": "random"}


def _mme(index: int) -> Row:
    """Two questions about each picture, of either kind in turn."""
    place = _yes_no(index)
    category = ("existence", "code_reasoning")[index // 2 % 2]
    known = {"question_id": f"{category}/{index // 2}.png", "category": category}
    question = f"{_asked(place)['question']} Please answer yes or no."
    return {**_asked(place), **known, "question": question, "answer": _answer(place).capitalize()}


def _vizwiz(index: int) -> Row:
    return {**_asked(index), "question_id": str(index), "answers": [_answer(index)] * 10, "category": "other"}


def _scienceqa(index: int) -> Row:
    choices = [_answer(index), "something else"]
    return {**_asked(index), "choices": choices, "answer": 0, "hint": "Look closely." if index % 2 else ""}


def _scienceqa_part_text(index: int) -> Row:
    return _scienceqa(index) if index % 2 else {**_scienceqa(index), "image": None}


BUILT_IN = {
    "textvqa_val": ("textvqa/textvqa_val.yaml", "validation", _textvqa, ""),
    # Its own process_docs downloads the pictures, which lie in another part of its dataset.
    "gqa": ("gqa/gqa.yaml", "testdev", _gqa, "process_docs: null\n"),
    "pope": ("pope/pope.yaml", "test", _pope, ""),
    "mme": ("mme/mme.yaml", "test", _mme, ""),
    "vizwiz_vqa_val": ("vizwiz_vqa/vizwiz_vqa_val.yaml", "val", _vizwiz, ""),
    "scienceqa_img": ("scienceqa/scienceqa_img.yaml", "test", _scienceqa, ""),
    "scienceqa": ("scienceqa/scienceqa.yaml", "test", _scienceqa_part_text, ""),
    "several_pictures": (
        "textvqa/textvqa_val.yaml",
        "validation",
        _textvqa,
        "doc_to_visual: !function several_pictures.pictures\n",
    ),
}
"""By name: the built-in YAML, its split, what makes a row, and lines that change the task."""


def write_several(folder: Path, num_samples: int) -> tuple[str, ...]:
    """Write all of `BUILT_IN`, each as `local_<name>`; return those names."""
    (folder / "several_pictures.py").write_text(
        "def pictures(doc):\n    return [doc['image']] * (doc['question_id'] % 3)\n"
    )
    for name, (built_in, split, row, lines) in BUILT_IN.items():
        rows = [row(index) for index in range(num_samples)]
        write_built_in(folder, built_in, rows, split=split, name=f"local_{name}", lines=lines)
    return tuple(f"local_{name}" for name in BUILT_IN)
