import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs
from run_folders import FakeRun, picture_of, write_fake_run

from adallava.errors import RunFolderError
from adallava.report.page import write_report

SMALL = FakeRun(methods=("random", "question", "none"), budgets=("8", "32"), num_samples=40)


def page_of(folder: Path, spec: FakeRun = SMALL) -> str:
    """Return the page of a made-up run, without plotly's bundle."""
    path = write_report(write_fake_run(folder, spec), picture_of)
    return path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")


class Outline(HTMLParser):
    """Collect what a test asks of a page: attributes by tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def test_the_page_says_what_was_run(tmp_path: Path) -> None:
    page = page_of(tmp_path)

    for text in (
        "tiny on scenes",
        "AMD EPYC 7B13",
        "transformers 5.17.0",
        "0123456789abcdef0123456789abcdef01234567",
        "5e" * 32,
        "b2" * 32,
        "2026-01-05T09:30:00+00:00",
    ):
        assert text in page
    command = re.sub(r"</?span>", "", page.partition("<code>")[2].partition("</code>")[0])
    assert command.strip() == (
        "adallava sweep --model tiny --task scenes --method random,question,none "
        "--token-budget 8,32 --limit 40 --output runs/tiny"
    )


def test_nothing_is_fetched_from_anywhere(tmp_path: Path) -> None:
    outline = Outline(page_of(tmp_path))

    sources = [a[key] for _, a in outline.seen for key in ("src", "href", "srcset", "action") if key in a]
    assert sources
    assert all(source is not None and source.startswith(("data:", "#")) for source in sources)


def test_pictures_have_texts_and_tables_have_captions(tmp_path: Path) -> None:
    outline = Outline(page_of(tmp_path))

    assert outline.all("img")
    assert all(image["alt"] for image in outline.all("img"))
    assert len(outline.all("caption")) == len(outline.all("table")) == 3
    assert all("scope" in head for head in outline.all("th"))
    assert outline.all("html") == [{"lang": "en"}]


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    assert page_of(tmp_path / "a") == page_of(tmp_path / "b")


def test_a_flagged_cell_is_warned_of_with_its_reason(tmp_path: Path) -> None:
    flagged = FakeRun(methods=("random",), budgets=("8",), num_samples=40, first_token_eos={"random@8": 4})
    page = page_of(tmp_path, flagged)

    warning = page.partition('id="warnings"')[2].partition("</section>")[0]
    assert "1 of 2 cells" in warning
    assert "random@8" in warning
    assert "10.0% of the answers are empty" in warning
    assert "4 (first-token-eos)" in warning
    assert page.index('id="warnings"') < page.index("What was run")


def test_a_sound_run_has_no_warning(tmp_path: Path) -> None:
    page = page_of(tmp_path)

    assert 'id="warnings"' not in page
    assert 'class="flag"' not in page


@pytest.mark.parametrize(
    "spec",
    [
        FakeRun(methods=(), num_samples=5),
        FakeRun(methods=(), num_samples=5, failing=frozenset({"full@1.0"})),
        FakeRun(methods=("none",), num_samples=5),
        FakeRun(methods=("random",), budgets=("8",), num_samples=5, failing=frozenset({"random@8"})),
        FakeRun(methods=("random",), budgets=("8",), num_samples=1, kinds=()),
    ],
    ids=["only-full", "all-failed", "only-none", "one-cell-failed", "no-kinds"],
)
def test_odd_runs_have_a_page_too(tmp_path: Path, spec: FakeRun) -> None:
    page = page_of(tmp_path, spec)

    visible = page.partition("<body>")[2].partition('<script type="application/json"')[0]
    assert "nan" not in re.sub(r'src="data:[^"]*"', "", visible).lower().split()
    assert ">None<" not in visible


def test_texts_of_a_run_cannot_become_markup(tmp_path: Path) -> None:
    bad = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\"'"
    spec = FakeRun(methods=("random",), budgets=("8",), num_samples=20, question=bad, response=bad)
    page = page_of(tmp_path, spec)

    assert "document.title=&#39;taken&#39;" in page
    assert "<script>document.title" not in page
    assert all("onerror" not in attributes for _, attributes in Outline(page).seen)


def test_the_data_of_the_plots_cannot_end_its_element(tmp_path: Path) -> None:
    # A failed cell stands in the data by its bare name, the other in markup that plotly would read.
    spec = FakeRun(methods=("random",), budgets=("8", "32"), num_samples=20, failing=frozenset({"random@8"}))
    folder = write_fake_run(tmp_path, spec)
    for name in ("results.json", "samples.jsonl"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("random", "</script><b>"))
    page = write_report(folder, picture_of).read_text().replace(get_plotlyjs(), "")

    line = page.partition('id="plots">')[2].partition("\n")[0].removesuffix("</script>")
    assert "<" not in line
    data = json.loads(line)
    assert data[0]["missing"] == ["</script><b>@8: every sample failed"]
    names = [trace.get("name", "") for trace in data[0]["figure"]["data"]]
    assert "&lt;/script&gt;&lt;b&gt;" in names


def test_only_our_own_scripts_may_run(tmp_path: Path) -> None:
    policies = [m["content"] for m in Outline(page_of(tmp_path)).all("meta") if "http-equiv" in m]

    assert len(policies) == 1
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'; script-src 'sha256-")
    scripts = policies[0].partition("script-src")[2].partition(";")[0]
    assert "unsafe" not in scripts
    assert scripts.count("'sha256-") == 2


@pytest.mark.parametrize("name", ["run.json", "results.json", "samples.jsonl"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_fake_run(tmp_path, SMALL)
    (folder / name).unlink()

    with pytest.raises(RunFolderError, match=name):
        write_report(folder, picture_of)
    assert not list(folder.glob("*report*"))


def test_a_damaged_line_is_named_by_number(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, SMALL)
    lines = (folder / "samples.jsonl").read_text().splitlines()
    lines[2] = lines[2][:50]
    (folder / "samples.jsonl").write_text("\n".join(lines))

    with pytest.raises(RunFolderError, match="line 3 of"):
        write_report(folder, picture_of)


def test_results_of_another_schema_are_refused_with_the_field(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, SMALL)
    results = json.loads((folder / "results.json").read_text())
    results["cells"][0]["surprise"] = 1
    (folder / "results.json").write_text(json.dumps(results))

    with pytest.raises(RunFolderError, match=r"cells\.0\.surprise"):
        write_report(folder, picture_of)


def test_the_report_needs_no_torch() -> None:
    probe = "import sys, adallava.report.page; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
