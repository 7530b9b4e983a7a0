import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich_runs import RichRun, write_rich_run

from adallava.cli.main import main
from adallava.records import Run

SPEC = RichRun(methods=("random", "pool"), budgets=(8, 32), num_samples=30, batch_sizes=(), compact=False)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return write_rich_run(tmp_path / "run", SPEC)


def test_the_page_is_written_anew_and_named(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run_folder)]) == 0

    assert capsys.readouterr().out.splitlines()[-1] == str(run_folder / "report.html")
    assert "tiny on scenes" in (run_folder / "report.html").read_text()


def test_a_second_run_is_laid_over_into_a_file_of_its_own(run_folder: Path, tmp_path: Path) -> None:
    other = write_rich_run(tmp_path / "earlier", SPEC)
    page = tmp_path / "both.html"

    assert main(["report", str(run_folder), "--compare", str(other), "--output", str(page)]) == 0
    assert "Against “earlier”" in page.read_text()
    assert not (run_folder / "report.html").exists()


def test_figures_and_tables_are_written_beside(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adallava.report import paper_figures

    axes = paper_figures.cost_axes
    monkeypatch.setattr(paper_figures, "cost_axes", lambda results: axes(results)[:1])
    figures = tmp_path / "paper"
    assert main(["report", str(run_folder), "--figures", str(figures)]) == 0

    written = sorted(path.name for path in figures.iterdir())
    assert {"accuracy.tex", "accuracy.md", "accuracy-layer-tokens.pdf", "accuracy-layer-tokens.png"} <= set(written)
    printed = capsys.readouterr().out.splitlines()
    assert sorted(Path(line).name for line in printed if line.startswith(str(figures))) == written


def test_pictures_come_from_the_runs_own_task(run_folder: Path, tmp_path: Path) -> None:
    """The made-up ids are no samples of `scenes`; renamed to its own, they have pictures."""
    lines = [json.loads(line) for line in (run_folder / "samples.jsonl").read_text().splitlines()]
    for line in lines:
        line["sample_id"] = f"test-{int(line['sample_id'].rsplit('-', 1)[1]):06d}"
    (run_folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["report", str(run_folder), "--pictures", "7"]) == 0

    assert "7 of 30 samples have their image here" in (run_folder / "report.html").read_text()


def test_a_task_that_is_gone_or_changed_leaves_the_pictures_out_and_says_so(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.model_validate_json((run_folder / "run.json").read_text())
    task = tmp_path / "questions.jsonl"
    config = run.config.model_copy(update={"task": str(task), "split": None})
    (run_folder / "run.json").write_text(run.model_copy(update={"config": config}).model_dump_json())

    assert main(["report", str(run_folder)]) == 0
    assert "note: the page has no images" in capsys.readouterr().out
    task.write_text(json.dumps({"image": "a.png", "question": "q", "answer": "a"}) + "\n")
    assert main(["report", str(run_folder)]) == 0
    assert "no longer the file that the run was made from" in capsys.readouterr().out
    assert "0 of 30 samples have their image here" in (run_folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "run.json cannot be read"),
        (["{run}", "--compare", "nowhere"], "run.json cannot be read"),
        (["{run}", "--pictures", "-1"], "--pictures -1 is not a number of samples"),
        (["{run}", "--output", "no/such/folder/page.html"], "make no/such/folder first"),
        (["{run}", "--include-path", "tasks"], "--include-path tasks does not fit task scenes"),
    ],
)
def test_a_mistake_is_one_line(
    run_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert main(["report", *(argument.replace("{run}", str(run_folder)) for argument in arguments)]) == 2

    error = capsys.readouterr().err
    assert error.startswith("adallava report: ")
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["run/timings.jsonl", "run/samples.jsonl", "run/.lock", "questions.jsonl", "a.png"])
def test_a_page_is_written_over_a_page_alone(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    target = tmp_path / name if not name.startswith("run/") else run_folder / name.removeprefix("run/")
    if not name.startswith("run/"):
        target.write_bytes(b"mine")
    before = target.read_bytes() if target.exists() else None
    assert main(["report", str(run_folder), "--output", str(target)]) == 2
    assert str(target) in capsys.readouterr().err
    assert (target.read_bytes() if target.exists() else None) == before


def test_without_matplotlib_the_remedy_comes_before_any_work(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(run_folder), "--figures", str(tmp_path / "paper")]) == 2

    assert "pip install 'adallava[figures]'" in capsys.readouterr().err
    assert not (run_folder / "report.html").exists()


@pytest.mark.long
def test_the_command_needs_no_torch(run_folder: Path) -> None:
    probe = (
        "import sys; from adallava.cli.main import main; "
        f"code = main(['report', {str(run_folder)!r}]); "
        "print(code, sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "0 []"
