"""The majority answer of a run that was summed up before there was one, from its records."""

import numpy as np

from adallava.analysis.clusters import Clusters
from adallava.analysis.majority import describe_majority, score_majority
from adallava.records import FULL_METHOD, Results, Run
from adallava.report.hard_samples import hard_samples
from adallava.report.sample_table import SampleTable
from adallava.tasks.scoring import EXACT_MATCH, exact_match


def with_majority(run: Run, results: Results, table: SampleTable) -> Results:
    """Return results with the line of the majority answer, where the records say what it scores.

    They do where the metric is an exact match, and that gives each answer of the
    full-token model the score that was recorded: an older version may have matched in another way.
    """
    full = next((cell.cell for cell in results.cells if cell.method == FULL_METHOD), None)
    if results.majority is not None or full is None or run.config.metric != EXACT_MATCH:
        return results
    expected = {row.sample_id: row.expected for row in table.rows}
    scored = {key: one for key, one in table.columns[full].items() if one.score is not None}
    if not scored or any(exact_match(one.text, expected[key]) != one.score for key, one in scored.items()):
        return results
    kinds = {row.sample_id: row.kind for row in table.rows}
    scores = score_majority(expected, kinds, lambda key, response: exact_match(response, expected[key]))
    if scores is None:
        return results
    hard = hard_samples(results, table)
    on_hard = None if hard is None else np.array([key in hard for key in expected], dtype=np.bool_)
    pictures = {row.sample_id: row.picture_sha256 for row in table.rows}
    clusters = Clusters.by_picture(list(expected), pictures)
    majority = describe_majority(scores, np.array(list(kinds.values()), dtype=object), on_hard, clusters)
    return results.model_copy(update={"majority": majority})
