"""A few questions in VQAv2's official format, and an lmms-eval task over them made of the built-in `vqav2_val`."""

import io
from pathlib import Path
from typing import Any

from built_in_tasks import write_built_in

from adallava.tasks.scenes import scene_sample

TASK = "vqav2_scenes"
SHORT_PROMPT = "\nAnswer the question using a single word or phrase."


def vqav2_row(index: int) -> dict[str, Any]:
    """Join a question and its annotation as the published dataset does; seven of ten people know the answer.

    The others say that they do not, each in other words: what all say to every question would score as well as many an
    answer.

    Fields as in `v2_OpenEnded_mscoco_val2014_questions.json` and `v2_mscoco_val2014_annotations.json`.
    """
    from PIL import Image

    scene, question = scene_sample("test", index)
    picture = io.BytesIO()
    Image.fromarray(scene.image).save(picture, "PNG")
    said = [question.answer] * 7 + ["don't know", "no idea", "unsure"]
    answers = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": number} for number, answer in enumerate(said, 1)
    ]
    return {
        "question_type": "what is",
        "multiple_choice_answer": question.answer,
        "answers": answers,
        "image_id": 1000 + index,
        "answer_type": "other",
        "question_id": 1000 * (1000 + index),
        "question": question.text,
        "image": {"bytes": picture.getvalue(), "path": f"COCO_val2014_{1000 + index:012d}.png"},
    }


def write_task(folder: Path, num_samples: int, *, name: str = TASK, lines: str = "") -> Path:
    """Write the data and the task's YAML; return the folder, which lmms-eval is given as `--include_path`."""
    rows = [vqav2_row(index) for index in range(num_samples)]
    return write_built_in(folder, "vqav2/vqav2_val.yaml", rows, split="validation", name=name, lines=lines)


def break_second_picture(folder: Path, name: str) -> None:
    """Put what no decoder can read in the place of the second picture of a task's file."""
    import pyarrow.parquet

    file = folder / f"{name}.parquet"
    table = pyarrow.parquet.read_table(file)
    pictures = table.column("image").to_pylist()
    pictures[1]["bytes"] = b"no picture"
    place = table.column_names.index("image")
    damaged = table.set_column(place, "image", pyarrow.array(pictures, type=table.schema.field("image").type))
    pyarrow.parquet.write_table(damaged.replace_schema_metadata(table.schema.metadata), file)
