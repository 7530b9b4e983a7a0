"""What `--task` names: a bundled task takes no columns, and a folder is no file."""

import pytest

from adallava.errors import InputError
from adallava.tasks import load_task


def test_columns_of_a_bundled_task_are_refused_by_their_options():
    with pytest.raises(InputError, match="leave --image-column photo, --id-column key out"):
        load_task("scenes", columns={"image": "photo", "id": "key"})


def test_a_folder_is_not_called_missing(tmp_path):
    with pytest.raises(InputError, match="is a folder: name the"):
        load_task(str(tmp_path))
