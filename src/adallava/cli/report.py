"""`adallava report`: parse, call, print."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import path_argument, whole_number
from .shared_options import add_allow_outside, add_title
from .streams import say

if TYPE_CHECKING:
    from PIL import Image

    from adallava.records import Run, RunConfig
    from adallava.tasks import Task

_DESCRIPTION = """\
Write the report of a finished sweep again: one HTML page that opens from disk. It can also show a second run, or
write figures (PDF, PNG) and tables (LaTeX, Markdown) for a paper.
"""

_EPILOG = """\
examples:
  adallava report runs/first
  adallava report runs/second --compare runs/first --output both.html
  adallava report runs/first --figures paper/figures
  adallava report runs/mine --include-path my_tasks   # for a sweep of lmms:NAME with a task of your own

exit codes: 0 done; 2 a mistake in the call or its input.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "report",
        help="write the report of a finished sweep, or figures and tables for a paper",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(parser)


def _add_options(parser: Any) -> None:
    parser.add_argument("run_folder", type=path_argument, metavar="RUN", help="the run folder of a finished sweep")
    parser.add_argument(
        "--compare",
        type=path_argument,
        metavar="OTHER_RUN",
        help="another run over the same samples, to show next to the first (default: none)",
    )
    parser.add_argument(
        "--output",
        type=path_argument,
        metavar="FILE",
        help="the page to write (default: report.html in the run folder)",
    )
    parser.add_argument(
        "--pictures",
        type=whole_number,
        metavar="N",
        help="samples shown with their images (default: 120, fewer if the page gets too large)",
    )
    parser.add_argument(
        "--include-path",
        type=path_argument,
        metavar="DIR",
        help="for a run of lmms:NAME: the task folder that you gave the sweep, to show images (default: none)",
    )
    parser.add_argument(
        "--roofline",
        metavar="HARDWARE",
        help="show the lower bound of time to first token on this hardware, such as h100-sxm, next to the measured "
        "time (default: on the hardware of the run, if its peak speed is known)",
    )
    add_title(parser, "the sweep's own, else model and task; run.json does not change")
    add_allow_outside(parser)
    parser.add_argument(
        "--figures",
        type=path_argument,
        metavar="DIR",
        help="also write figures and tables into this folder (default: none)",
    )


def run(args: argparse.Namespace) -> int:
    """Write what was asked for and print each path."""
    from adallava.errors import InputError
    from adallava.report.alarm_lines import alarm_lines
    from adallava.report.page import write_report

    from .finished_run import open_run
    from .output_paths import check_page

    folders = [folder for folder in (args.run_folder, args.compare) if folder is not None]
    if args.pictures is not None and args.pictures < 0:
        raise InputError(f"--pictures {args.pictures} is not a number of samples: give 0 or more")
    if args.output is not None and not args.output.resolve().parent.is_dir():
        raise InputError(f"--output {args.output} lies in no folder: make {args.output.parent} first")
    if args.output is not None:
        check_page("--output", args.output, folders)
    if args.figures:
        from adallava.report.paper_dials import write_dial_figures
        from adallava.report.paper_figures import load_matplotlib, write_figures
        from adallava.report.paper_tables import write_tables

        load_matplotlib()  # Now: whoever lacks it should not wait for the page first.
    opened = open_run(args.run_folder)
    for severity, message in alarm_lines(opened.results):
        say(f"{severity.upper()}: {message}", error=True)
    page = write_report(
        args.run_folder,
        _pictures_of(opened.run, args.include_path, args.allow_outside),
        target=args.output,
        num_pictures=args.pictures,
        roofline=args.roofline,
        laid_over=args.compare,
        title=args.title,
        tell=partial(say, error=True),
    )
    say(page)
    if args.figures:
        paths = write_tables(opened.run, opened.results, args.figures, args.roofline, args.title)
        paths += [*write_figures(opened.results, args.figures), *write_dial_figures(opened.results, args.figures)]
        say(*paths)
    return 0


def _pictures_of(
    run: "Run", include_path: Path | None, allow_outside: bool
) -> "Callable[[str], Sequence[Image.Image]]":
    """Return how to find a sample's images; a task that is gone or has changed gives none, and says so.

    Raises:
        AdallavaError: if a folder was named for the task, and it cannot be loaded from there.
    """
    from adallava.errors import AdallavaError
    from adallava.tasks.task import pictures_of

    try:
        task = _load_task(run.config, include_path, allow_outside)
    except AdallavaError as error:
        if include_path is not None:
            raise
        say(f"note: the page has no images: {' '.join(str(error).split())}")
        return lambda _: ()
    if task.sha256 != run.provenance.task_sha256:
        changed = (
            "is no longer the file that the run was made from"
            if task.aggregate is None
            else "has other questions or answers than in the run: other data, lmms-eval or --include-path"
        )
        say(f"note: the page has no images: {run.config.task} {changed}")
        return lambda _: ()
    return pictures_of(task)


def _load_task(config: "RunConfig", include_path: Path | None, allow_outside: bool) -> "Task":
    from adallava.registry import task_source
    from adallava.tasks import load_task

    if task_source(config.task) is None:
        return load_task(
            config.task,
            split=config.split,
            limit=config.limit,
            columns=config.columns,
            include_path=include_path,
            sample=config.sample,
            seed=config.seed,
            allow_outside=allow_outside,
        )
    # A split and columns are its own, and no one's to name; its metric may have been chosen.
    return load_task(
        config.task,
        limit=config.limit,
        metric=config.metric,
        include_path=include_path,
        sample=config.sample,
        seed=config.seed,
    )
