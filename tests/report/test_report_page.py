import json
import re
import subprocess
import sys
import zlib
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs
from rich_runs import RichRun, write_rich_run
from run_folders import FakeRun, picture_of, write_fake_run

from adallava.errors import RunFolderError
from adallava.report.page import write_report

SMALL = FakeRun(methods=("random", "question", "none"), budgets=("8", "32"), num_samples=40)


def page_of(folder: Path, spec: FakeRun = SMALL) -> str:
    """Return the page of a made-up run, without plotly's bundle."""
    path = write_report(write_fake_run(folder, spec), picture_of, num_pictures=4)
    return path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")


@pytest.fixture(scope="module")
def small_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(tmp_path_factory.mktemp("small"))


RICH = RichRun(methods=("random", "pool", "fastv"), num_samples=60)


def rich_page_of(folder: Path, spec: RichRun = RICH) -> str:
    """Return the page of a made-up run with all that a protocol records, without plotly's bundle."""
    path = write_report(write_rich_run(folder, spec), picture_of, num_pictures=4)
    return path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")


def data_of(page: str, name: str) -> dict[str, Any]:
    """Return the JSON of one of the page's data elements."""
    line = page.partition(f'id="{name}">')[2].partition("\n")[0]
    assert line.count("<") == 1, "nothing in the data can end its element"
    return json.loads(line.removesuffix("</script>"))


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


def test_the_page_says_what_was_run(small_page: str) -> None:
    for text in (
        "tiny on scenes",
        "AMD EPYC 7B13",
        "transformers 5.17.0",
        "0123456789abcdef0123456789abcdef01234567",
        "5e" * 32,
        "b2" * 32,
        "2026-01-05T09:30:00+00:00",
    ):
        assert text in small_page
    command = re.sub(r"</?span>", "", small_page.partition("<code>")[2].partition("</code>")[0])
    assert command.strip() == (
        "adallava sweep --model tiny --task scenes --method random,question,none "
        "--token-budget 8,32 --limit 40 --output runs/tiny"
    )


def test_nothing_is_fetched_from_anywhere(small_page: str) -> None:
    outline = Outline(small_page)

    sources = [a[key] for _, a in outline.seen for key in ("src", "href", "srcset", "action") if key in a]
    assert sources
    assert all(source is not None and source.startswith(("data:", "#")) for source in sources)


@pytest.mark.parametrize("rich", [False, True])
def test_tables_have_captions_and_controls_have_names(tmp_path: Path, rich: bool) -> None:
    outline = Outline(rich_page_of(tmp_path) if rich else page_of(tmp_path))

    assert len(outline.all("caption")) == len(outline.all("table")) == (8 if rich else 4)
    assert all("scope" in head for head in outline.all("th"))
    assert outline.all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in outline.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [a[key] for _, a in outline.seen for key in ("aria-labelledby", "for") if key in a]
    assert set(named) <= set(ids)


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


def test_cells_with_the_same_to_say_are_warned_of_together(tmp_path: Path) -> None:
    budgets = ("32", "16", "8")
    empty = {"random@32": 4, "random@16": 4, "random@8": 6}
    page = page_of(tmp_path, FakeRun(methods=("random",), budgets=budgets, num_samples=40, first_token_eos=empty))

    warning = page.partition('id="warnings"')[2].partition("</section>")[0]
    assert warning.count("<li>") == 2
    assert "<b>random@32, random@16</b>" in warning
    assert "<b>random@8</b>" in warning


def test_a_sound_run_has_no_warning(small_page: str) -> None:
    assert 'id="warnings"' not in small_page
    assert 'class="flag"' not in small_page


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
    assert "nan" not in visible.lower().split()
    assert ">None<" not in visible


BAD = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\"'<!--"


def test_texts_of_a_run_cannot_become_markup(tmp_path: Path) -> None:
    spec = FakeRun(methods=("random",), budgets=("8",), num_samples=20, question=BAD, response=BAD)
    folder = write_fake_run(tmp_path, spec)
    quoted = json.dumps(BAD)
    for name in ("run.json", "results.json", "samples.jsonl"):
        text = (folder / name).read_text()
        for plain in ("random", "attribute", "tiny"):
            text = text.replace(f'"{plain}"', quoted)
        (folder / name).write_text(text)
    page = write_report(folder, picture_of).read_text().replace(get_plotlyjs(), "")

    assert "document.title=&#39;taken&#39;" in page
    assert "<script>document.title" not in page
    assert "<img" not in page
    assert "<!--" not in page
    assert all("onerror" not in attributes for _, attributes in Outline(page).seen)
    assert [a.get("type") for a in Outline(page).all("script")] == ["application/json"] * 2 + ["text/plain", None]


def test_the_data_of_the_page_cannot_end_its_element(tmp_path: Path) -> None:
    spec = FakeRun(methods=("random",), budgets=("8", "32"), num_samples=20, failing=frozenset({"random@8"}))
    folder = write_fake_run(tmp_path, spec)
    for name in ("results.json", "samples.jsonl"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("random", "</script><b>"))
    page = write_report(folder, picture_of).read_text().replace(get_plotlyjs(), "")
    data = data_of(page, "cells")

    assert data["axes"][0]["missing"] == ["</script><b>@8: every sample failed"]
    assert data["methods"][1]["id"] == "</script><b>"
    assert data_of(page, "samples-data")["cells"][1] == "</script><b>@8"


def test_the_packed_samples_are_those_of_the_run(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    data = data_of(page, "samples-data")
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    ids = json.loads(zlib.decompress(b64decode(data["ids"])))
    scores = zlib.decompress(b64decode(data["scores"]))

    assert ids == list(dict.fromkeys(line["sample_id"] for line in lines))
    assert len(scores) == len(lines) == len(ids) * len(data["cells"])
    for line in lines:
        place = data["cells"].index(line["cell"]) * len(ids) + ids.index(line["sample_id"])
        assert scores[place] == 240 * line["score"]


def test_the_page_says_how_many_samples_have_a_picture_and_by_what_rule(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, SMALL)
    some = write_report(folder, picture_of, num_pictures=12).read_text()
    every = write_report(folder, picture_of, num_pictures=400).read_text()
    none = write_report(folder, lambda _: ()).read_text()

    assert "12 of 40 samples have their image here, chosen by a rule" in some
    assert "Every sample has its image here." in every
    assert "0 of 40 samples have their image here" in none


def test_what_the_protocol_found_is_said_with_its_counts(tmp_path: Path) -> None:
    page = " ".join(rich_page_of(tmp_path).partition("<script")[0].split())
    results = json.loads((tmp_path / "results.json").read_text())
    split, pairs = results["hard_split"], results["comparisons"]

    assert f"`none` is right on {split['answered_without_image']} of 60 samples, without the image" in page
    assert f"The other {split['num_hard']} are the hard split" in page
    significant = sum(pair["significant"] for pair in pairs)
    assert (
        f"Of {len(pairs)} tested pairs of cells, {significant} {'is' if significant == 1 else 'are'} told apart" in page
    )
    assert "Of 2 tested pairs of methods at equal cost, 1 is told apart by a corrected test" in page
    assert "not told apart, which does not make" in page
    assert page.count("</b> is ahead of") == significant + 1
    assert page.count("are not told apart</th>") == len(pairs) - significant + 1
    assert "FLOPs, 1.00 to 2.00 GFLOPs" in page
    assert "batch 32</th>" in page


def test_an_old_run_says_nothing_of_what_it_lacks(small_page: str) -> None:
    page = small_page.partition("<script")[0]

    assert 'id="hard-split"' not in page
    assert 'id="verdicts-title"' not in page
    assert 'id="view-split"' not in page
    assert 'id="view-positions"' not in page
    assert "is ahead of" not in page
    assert "This run tested no pair of methods" in page


def test_long_answers_leave_the_page_where_they_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adallava.report.page_samples.RESPONSES_BYTES", 40)
    page = write_report(write_fake_run(tmp_path, SMALL), picture_of, num_pictures=3).read_text()
    data = data_of(page, "samples-data")
    responses = zlib.decompress(b64decode(data["responses"]))
    numbers = [int.from_bytes(responses[i : i + 4], "little") for i in range(0, len(responses), 4)]

    assert "The page holds answers only for samples with an image" in page
    assert sum(number > 0 for number in numbers) == 3 * len(data["cells"])


def test_only_our_own_scripts_may_run(small_page: str) -> None:
    policies = [m["content"] for m in Outline(small_page).all("meta") if "http-equiv" in m]

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


@pytest.mark.long
def test_the_report_needs_no_torch() -> None:
    probe = "import sys, adallava.report.page; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("of_run", [True, False])
def test_a_title_of_ones_own_is_the_heading_and_text_alone(tmp_path: Path, of_run: bool) -> None:
    folder, title = write_fake_run(tmp_path, SMALL), "Half & half: <b>uniform</b> at 5 %"
    run = json.loads((folder / "run.json").read_text())
    run["config"]["title"] = title if of_run else "another"
    (folder / "run.json").write_text(json.dumps(run))
    page = write_report(folder, picture_of, num_pictures=0, title="" if of_run else title).read_text()

    assert "<h1>Half &amp; half: &lt;b&gt;uniform&lt;/b&gt; at 5 %</h1>" in page
    assert '<p class="subject">' in page, "model and task stay"
    assert json.loads((folder / "run.json").read_text()) == run
