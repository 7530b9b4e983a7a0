"""The bundled synthetic task: busy images of shapes and handwritten numbers, with questions.

Images are 224x224 RGB, cut into 16x16 patches of 14 px; patch index = row * 16 + column.
"""

from adallava.tasks.scenes.scene_questions import make_questions, scene_sample

from .draw import make_scene
from .labels import patch_labels
from .records import Question, Scene, SceneNumber, SceneObject
from .vocabulary import (
    COLORS,
    GRID,
    IMAGE_PX,
    KINDS,
    PATCH_COUNT,
    PATCH_PX,
    SHAPES,
    SIZES,
    SPLITS,
)

__all__ = [
    "COLORS",
    "GRID",
    "IMAGE_PX",
    "KINDS",
    "PATCH_COUNT",
    "PATCH_PX",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "Question",
    "Scene",
    "SceneNumber",
    "SceneObject",
    "make_questions",
    "make_scene",
    "patch_labels",
    "scene_sample",
]
