import os
import subprocess
import sys
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from adallava import AdaLlava
from adallava.errors import AdallavaError, UnknownNameError
from adallava.families.family_contract import Family
from adallava.registry import found as registry
from adallava.registry import load_selector_class, selector_names
from adallava.runs.availability import why_left_out
from adallava.runs.loading import resolve_methods
from adallava.selection import build_selector
from adallava.selection.layer_contract import LayerSelector
from adallava.selection.selector_contract import Selector, TowerShape
from adallava.selection.uniform import UniformSelector

SHAPE = TowerShape(16, 32, 48, (4, 4))


def test_the_built_in_methods_are_registered() -> None:
    assert set(selector_names()) >= {"random", "uniform", "pool", "none", "budget-token", "question"}
    assert set(selector_names()) >= {"fastv", "sparsevlm", "pyramiddrop"}


@pytest.mark.parametrize("name", selector_names())
def test_every_method_keeps_the_contract_of_a_selector(name: str) -> None:
    selector = build_selector(name, SHAPE)
    # Of one kind, never of both: each kind is driven in another way.
    assert isinstance(selector, Selector) != isinstance(selector, LayerSelector)
    assert selector.name == name


@pytest.mark.parametrize(("asked", "nearest"), [("unifrm", "uniform"), ("budget_token", "budget-token")])
def test_a_misspelled_method_is_answered_with_the_nearest(asked: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{nearest}'.*known are .*random"):
        load_selector_class(asked)


def test_no_name_at_all_is_answered_with_what_is_known() -> None:
    with pytest.raises(UnknownNameError, match=r"no selection method None: known are .*random"):
        load_selector_class(None)  # type: ignore[arg-type]


def test_an_option_that_a_method_does_not_take_is_named() -> None:
    with pytest.raises(AdallavaError, match=r"'random'.*tau=3"):
        build_selector("random", SHAPE, tau=3)


class ScheduleOnly:
    """A method inside the LLM that is not finished."""

    def schedule(self) -> None: ...


def test_a_family_must_have_all_that_the_rest_asks_of_one() -> None:
    asked = {name for name in {**vars(Family), **Family.__annotations__} if not name.startswith("_")}
    assert set(registry._REQUIRED_FAMILY) == asked
    assert len(registry._REQUIRED_FAMILY) == len(asked)


def _register(monkeypatch: pytest.MonkeyPatch, *entry_points: tuple[str, str]) -> None:
    made = [EntryPoint(name, value, registry.SELECTOR_GROUP) for name, value in entry_points]
    monkeypatch.setattr(registry, "entry_points", lambda group: made)


def test_one_name_registered_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _register(monkeypatch, ("mine", "a:A"), ("mine", "b:B"))
    with pytest.raises(AdallavaError, match=r"two packages register.*'mine'.*a:A.*b:B"):
        selector_names()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mine", "no_such_module:A", "cannot be imported"),
        ("mine", "adallava.selection.random:NoSuchClass", "cannot be imported"),
        ("mine", "adallava.budget:TokenBudget", "lacks name, learned"),
        ("mine", "adallava.selection.random:RandomSelector", "its `name` is 'random'"),
        (
            "mine",
            "test_registry:ScheduleOnly",
            "lacks name, learned, needs, merges, per_sample, ignores_budget, flops, raters, choose, num_raters",
        ),
    ],
)
def test_a_broken_registration_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    _register(monkeypatch, (name, value))
    with pytest.raises(AdallavaError, match=message):
        load_selector_class(name)


class Unmade(UniformSelector):
    """Another package's, whose constructor is broken."""

    name = "mine"

    def __init__(self) -> None:
        1 / 0  # noqa: B018


class Listed(UniformSelector):
    """Says its needs as a list of words."""

    name = "mine"
    needs = ["grid"]  # noqa: RUF012


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        ("Unmade", r"'mine' cannot be made: test_registry.Unmade raises ZeroDivisionError"),
        ("Listed", r"'mine' has needs=\['grid'\]: give a frozenset"),
    ],
)
def test_a_method_that_cannot_be_made_or_says_no_needs_is_one_line(
    monkeypatch: pytest.MonkeyPatch, full: AdaLlava, cls: str, message: str
) -> None:
    _register(monkeypatch, ("mine", f"test_registry:{cls}"))
    with pytest.raises(AdallavaError, match=message):
        full.with_method("mine")


class Halfway(Selector):
    """Inherits the protocol, and has written nothing but `select`."""

    name = "mine"
    learned = merges = per_sample = ignores_budget = False
    needs = frozenset()

    def select(self, inputs: object) -> None: ...


def test_what_a_class_takes_over_from_the_protocol_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    _register(monkeypatch, ("mine", "test_registry:Halfway"))
    with pytest.raises(AdallavaError, match=r"lacks flops \("):
        load_selector_class("mine")


def test_a_broken_method_of_another_package_is_left_out_of_all(
    monkeypatch: pytest.MonkeyPatch, full: AdaLlava, tmp_path: Path
) -> None:
    (tmp_path / "breaks_on_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _register(monkeypatch, ("mine", "breaks_on_import:A"), ("uniform", "adallava.selection.uniform:UniformSelector"))
    resolved = resolve_methods(["all"])
    assert resolved["mine"] is resolved["uniform"] is False
    reason = why_left_out(full, "mine", {})
    assert reason is not None
    assert "cannot be imported from 'breaks_on_import:A': ZeroDivisionError" in reason


def test_listing_the_methods_does_not_import_torch() -> None:
    code = (
        "import sys; from adallava.registry import selector_names; selector_names(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PLUGIN = '''
import torch
from adallava import Selection

class CornerSelector:
    """Keeps the first K patches."""

    name = "corner"
    learned = False
    needs = frozenset()
    merges = False
    per_sample = False
    ignores_budget = False

    def select(self, inputs):
        k_max = max(inputs.keep_counts)
        indices = torch.arange(k_max, device=inputs.features.device).repeat(len(inputs.keep_counts), 1)
        counts = torch.tensor(inputs.keep_counts, device=inputs.features.device)
        return Selection(indices * (indices < counts[:, None]), inputs.keep_counts)

    def flops(self, shape, num_question_tokens, keep_count):
        return 0
'''

USE_PLUGIN = """
import sys
sys.path.insert(0, sys.argv[1])
from models import tiny_inputs
from adallava import AdaLlava
from adallava.registry import selector_names
assert "corner" in selector_names(), selector_names()
model = AdaLlava.from_pretrained(sys.argv[2], method="corner", device="cpu")
output = model.generate(**tiny_inputs(model.processor, ["why?"]), token_budget=3, max_new_tokens=2)
print(output.records[0].method, output.records[0].kept_indices)
"""


def _wheel_of_plugin(folder: Path) -> Path:
    wheel = folder / "corner_selector-1.0-py3-none-any.whl"
    info = "corner_selector-1.0.dist-info"
    files = {
        "corner_selector.py": PLUGIN,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: corner-selector\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[adallava.selectors]\ncorner = corner_selector:CornerSelector\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return wheel


@pytest.mark.long
def test_an_installed_third_party_method_is_listed_and_answers(tmp_path: Path, tiny_folder: Path) -> None:
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, str(_wheel_of_plugin(tmp_path))], check=True)
    done = subprocess.run(
        [sys.executable, "-c", USE_PLUGIN, str(Path(__file__).parent), str(tiny_folder)],
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "corner ((0, 1, 2),)"
