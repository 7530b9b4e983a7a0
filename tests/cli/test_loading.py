"""What a command does before it loads a model, in a process of its own: the hub reads its environment once."""

import os
import subprocess
import sys

import pytest

_ASK = """
from huggingface_hub.utils import are_progress_bars_disabled
from adallava.cli.before_loading import quiet_loading
quiet_loading({model!r})
print(are_progress_bars_disabled())
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "environment", "disabled"),
    [
        ("tiny", {}, True),
        ("some/model", {}, False),
        ("some/model", {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}, True),
    ],
)
def test_only_a_download_shows_bars_and_none_where_the_user_wants_none(
    model: str, environment: dict[str, str], disabled: bool
) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    done = subprocess.run(
        [sys.executable, "-c", _ASK.format(model=model)],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(disabled)
    assert "progress bars" not in done.stderr
