"""A few questions in VQAv2's official format, and an lmms-eval task over them made of the built-in `vqav2_val`."""

import io
from pathlib import Path
from typing import Any

from adallava.tasks.scenes import scene_sample

TASK = "vqav2_scenes"
SHORT_PROMPT = "\nAnswer the question using a single word or phrase."


def vqav2_row(index: int) -> dict[str, Any]:
    """Join a question and its annotation as the published dataset does; seven of ten people know the answer.

    Fields as in `v2_OpenEnded_mscoco_val2014_questions.json` and `v2_mscoco_val2014_annotations.json`.
    """
    from PIL import Image

    scene, question = scene_sample("test", index)
    picture = io.BytesIO()
    Image.fromarray(scene.image).save(picture, "PNG")
    said = [question.answer] * 7 + ["don't know"] * 3
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
    import datasets
    import lmms_eval.tasks

    folder.mkdir(parents=True, exist_ok=True)
    rows = [vqav2_row(index) for index in range(num_samples)]
    data = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    data.to_parquet(str(folder / f"{name}.parquet"))
    built_in = Path(lmms_eval.tasks.__file__).parent / "vqav2" / "vqav2_val.yaml"
    (folder / f"{name}.yaml").write_text(
        f"include: {built_in}\n"
        f"task: {name}\n"
        "dataset_path: parquet\n"
        "dataset_kwargs:\n"
        "  data_files:\n"
        f"    validation: {folder / f'{name}.parquet'}\n"
        f"{lines}"
    )
    return folder
