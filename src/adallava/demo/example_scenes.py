"""Images and questions that come with the package: what the bundled model was made for."""

from PIL import Image

from adallava.tasks.scenes import make_questions, make_scene

_SPLIT = "test"
_EXAMPLES = ((0, "attribute"), (1, "reading"), (2, "counting"), (3, "locating"))


def example_scenes() -> list[tuple[Image.Image, str]]:
    """Return images, each with a question about it."""
    made = []
    for index, kind in _EXAMPLES:
        scene = make_scene(_SPLIT, index)
        (question,) = make_questions(scene, (kind,))
        made.append((Image.fromarray(scene.image), question.text))
    return made
