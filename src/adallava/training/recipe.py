"""Recipes: one TOML file a stage, checked before anything runs."""

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adallava.budget import MAX_COUNT, MAX_SEED
from adallava.checkpoints.schemas import MAX_HEADS, MAX_LAYERS, MAX_PICTURE_PX, MAX_VOCABULARY, MAX_WIDTH
from adallava.errors import InputError, UnknownNameError
from adallava.tasks import MAX_SCENES
from adallava.tasks.scenes import KINDS

RECIPES = Path(__file__).parent / "recipes"

StageName = Literal["align", "base", "question", "budget-token", "joint", "scheduler", "fixed-plan", "codebook"]


SEARCHES: tuple[StageName, ...] = ("fixed-plan", "codebook")
"""Stages in which nothing learns: plans are looked for."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, le=MAX_COUNT, strict=True)]
MAX_AT_ONCE = 2**16
AtOnce = Annotated[int, Field(gt=0, le=MAX_AT_ONCE, strict=True)]
"""Of what is in memory together."""
Layers = Annotated[int, Field(gt=0, le=MAX_LAYERS, strict=True)]
Heads = Annotated[int, Field(gt=0, le=MAX_HEADS, strict=True)]
MAX_BLANK_WIDTH = 2**16
Width = Annotated[int, Field(gt=0, le=MAX_BLANK_WIDTH, strict=True)]
MAX_BLANK_WEIGHTS = 2**32
"""Of a model that is made from nothing: with its gradients and moments 64 GiB in float32."""
KeepCounts = Annotated[tuple[Count, ...], Field(min_length=1)]


class BlankModel(_Part):
    """Shapes of a model made from nothing; see `adallava.training.blank`."""

    family: str | None = None
    """`model_type`; None = the first family that makes models from nothing."""
    tower: str | None = None
    """`model_type` of its tower; None = the family's own."""
    llm: str | None = None
    """`model_type` of its LLM."""
    image_px: int = Field(default=224, gt=0, le=MAX_PICTURE_PX)
    patch_px: int = Field(default=14, gt=0, le=MAX_PICTURE_PX)
    """Side of the square that one vision token shows."""
    vision_width: Width
    vision_layers: Layers
    vision_heads: Heads
    vision_mlp_width: Width
    llm_width: Width
    llm_layers: Layers
    llm_heads: Heads
    llm_kv_heads: Heads
    llm_mlp_width: Width
    vocab_size: int = Field(default=512, gt=0, le=MAX_VOCABULARY)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        tower = self.vision_layers * self.vision_width * (4 * self.vision_width + 2 * self.vision_mlp_width)
        tower += self.vision_width * (self.image_px // self.patch_px) ** 2
        llm = self.llm_layers * self.llm_width * (4 * self.llm_width + 3 * self.llm_mlp_width)
        weights = tower + llm + 2 * self.vocab_size * self.llm_width
        if weights > MAX_BLANK_WEIGHTS:
            raise ValueError(f"it makes a model of some {weights} weights: at most {MAX_BLANK_WEIGHTS} are made")
        return self


class Optimisation(_Part):
    """What `transformers.TrainingArguments` is given; one step sees `batch_size` images."""

    steps: Count
    schedule_steps: Count | None = None
    """Length of the learning rate's schedule, where training stops before its end; default: `steps`."""
    batch_size: AtOnce
    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    selector_learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Learning rate of a selector or scheduler that learns together with the base; default: `learning_rate`."""
    warmup_steps: int = Field(default=50, ge=0, le=MAX_COUNT)
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt", "polynomial"] = "cosine"
    weight_decay: float = Field(default=0.02, ge=0, allow_inf_nan=False)
    adam_beta2: float = Field(default=0.98, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class Lora(_Part):
    """Low-rank weights that learn with a scheduler, next to a frozen base; `peft.LoraConfig` is given them."""

    r: Width = 16
    """Rank."""
    alpha: float = Field(default=32, gt=0)
    """The low-rank product is multiplied by `alpha / r`."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """Projections of the LLM's layers."""


class Search(_Part):
    """How plans are searched for in stages `fixed-plan` and `codebook`; of the latter, `questions` and `batch_size`."""

    questions: int = Field(default=300, ge=2, le=MAX_SCENES)
    """Questions to score plans on, one per image, so that they are independent; from your own data, a sample by
    `seed`."""
    batch_size: AtOnce = 20
    most_plans: int = Field(default=100, ge=0, le=MAX_COUNT)
    """Up to this many plans, all are scored; beyond that, a beam search leaves out one layer after the other."""
    beam_width: Count = 4


class KeepMix(_Part):
    """How often each way of leaving tokens out is used in a step, and with which K."""

    full: Share = 0.0
    evidence: Share = 0.0
    random: Share = 0.0
    uniform: Share = 0.0
    pool: Share = 0.0
    question: Share = 0.0
    """In stages `scheduler`, `fixed-plan` and `codebook`, by the scorer that the model has."""
    keep_counts: KeepCounts = (128, 64, 32, 16, 8)
    evidence_keep_counts: KeepCounts = (96,)
    question_keep_counts: KeepCounts = (64, 32, 16, 8)


class Recipe(_Part):
    """One stage of training.

    Attributes:
        stage: what is learned: `align` (tower and projector, from labeled patches), `base` (answers, over a mix of
            budgets), `question` or `budget-token` (a controller on a frozen base), `joint` (scorer and base together),
            `scheduler` (which layers run, of a frozen base or of one that learns with it), `fixed-plan` (nothing: the
            best plan of each number of layers is searched for), `codebook` (nothing: the plans that a scheduler may be
            held to are taken from those it chooses).
        optimisation: how to train, in every stage that learns.
        search: in stages `fixed-plan` and `codebook`.
        lora: in stage `scheduler`, low-rank weights that learn with the scheduler instead of parts of the base.
        start_from: folder of the model to start from; a `[blank]` table makes one from nothing instead.
        trained: which parts of the base learn, by prefix of the parameter's name; empty for controllers, and in stage
            `scheduler` for a frozen base.
        first_scene: index of the first training image, so that stages see different ones.
        ground_weight, ground_layer: weight of the grounding loss in stage `base`, and the LLM layer that it teaches.
        questions_per_image: how many questions share one image's tokens.
        evidence_weight: in stage `question`, weight of a term that rewards ranking labeled evidence first.
        spread_weight: in stage `question`, weight of the scores' mean square, which keeps draws different.
        selection_keep_counts: in stage `joint`, K of the scorer's sets; `keep` is for the other steps.
        others_share: in stage `joint`, and in stage `scheduler` with a base that learns, share of steps in which the
            base learns as in stage `base`.
        missing_layers_share: share of the steps of stage `base` (also within other stages) with random layers missing.
        prefix_layers: first layers that are never missing; in stage `fixed-plan`, the scheduler's; default: half of the
            layers, or the scheduler's own prefix.
        scheduler: in stage `scheduler`, which one learns; in stage `codebook`, whose plans.
        scheduler_options: its constructor's arguments.
        learn_by: in stage `scheduler`, `policy` (gradient) or `gumbel` (straight-through, the reference).
        lowest_latency: share of the LLM below which nothing is drawn or scored: no plan, and no set of missing layers.
        policy_weight: in stage `scheduler` with a base that learns, weight of the scheduler's loss next to the base's.
        goes_on: in stages `question` and `scheduler`, continue from the adapter in the model's folder instead of from
            nothing.
        kinds: question types of the scenes that are asked, in turn.
    """

    stage: StageName
    optimisation: Optimisation | None = None
    search: Search = Search()
    lora: Lora | None = None
    blank: BlankModel | None = None
    trained: tuple[str, ...] = ()
    first_scene: int = Field(default=0, ge=0, le=MAX_SEED)
    questions_per_image: int = Field(default=14, gt=0, le=1024)
    kinds: tuple[str, ...] = Field(default=KINDS, min_length=1)
    keep: KeepMix = KeepMix()
    ground_weight: Share = 0.0
    ground_layer: int = Field(default=0, ge=0, le=MAX_LAYERS)
    budget_range: tuple[float, float] = (0.2, 1.0)
    samples_per_question: int = Field(default=4, ge=2, le=1024)
    evidence_weight: Share = 0.0
    spread_weight: Share = 0.0
    selection_keep_counts: KeepCounts = (32, 16, 8)
    others_share: float = Field(default=0.33, ge=0, le=1)
    missing_layers_share: float = Field(default=0.0, ge=0, le=1)
    prefix_layers: Layers | None = None
    scheduler: Literal["layers", "heads"] = "layers"
    scheduler_options: dict[str, Annotated[int, Field(ge=-MAX_WIDTH, le=MAX_WIDTH)]] = {}
    learn_by: Literal["policy", "gumbel"] = "policy"
    lowest_latency: float = Field(default=0.0, ge=0, lt=1)
    policy_weight: float = Field(default=0.1, gt=0)
    selector: dict[str, Annotated[int, Field(gt=0, le=2**14, strict=True)]] = {}
    goes_on: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _keeps_in_some_way(self) -> "Recipe":
        if self.keep.question and self.stage not in ("scheduler", *SEARCHES):
            raise ValueError("keep.question is for stages 'scheduler', 'fixed-plan' and 'codebook': leave it out")
        ways = sum(share for name, share in self.keep.model_dump().items() if not name.endswith("keep_counts"))
        if self.stage in ("base", "joint", "scheduler", *SEARCHES) and ways == 0:
            raise ValueError(f"stage {self.stage!r} needs a [keep] table with at least one way above 0")
        if self.stage == "scheduler" and self.base_learns and self.others_share and ways == self.keep.question:
            raise ValueError("where the base learns too, [keep] needs a way other than 'question' for the other steps")
        return self

    @model_validator(mode="after")
    def _learns_or_searches(self) -> "Recipe":
        if self.stage in SEARCHES:
            if self.optimisation is not None or self.trained or self.blank is not None:
                raise ValueError(f"stage {self.stage!r} learns nothing: leave optimisation, trained and blank out")
        elif self.optimisation is None:
            raise ValueError(f"stage {self.stage!r} needs an [optimisation] table")
        return self

    @model_validator(mode="after")
    def _kinds_and_range_mean_something(self) -> "Recipe":
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"kinds: no questions of kind {unknown[0]!r}; there are {', '.join(KINDS)}")
        low, high = self.budget_range
        if not 0 < low <= high <= 1:
            raise ValueError(f"budget_range [{low}, {high}]: give two shares, 0 < low <= high <= 1")
        return self

    @model_validator(mode="after")
    def _lora_fits(self) -> "Recipe":
        if self.lora is None:
            return self
        if self.stage != "scheduler":
            raise ValueError(f"[lora] is for stage 'scheduler', not {self.stage!r}: leave it out")
        if self.scheduler == "heads":
            raise ValueError(
                "'heads' runs slices of plain projections: train 'layers' with [lora], or 'heads' with trained"
            )
        if self.trained:
            raise ValueError("with [lora] the base itself stays as it is: leave trained out")
        return self

    @model_validator(mode="after")
    def _trained_fits(self) -> "Recipe":
        if self.stage in ("align", "base", "joint") and not self.trained:
            raise ValueError(f"stage {self.stage!r} trains the base: name the parts that learn in trained")
        if self.stage in ("question", "budget-token") and self.trained:
            raise ValueError(f"stage {self.stage!r} trains a controller on a frozen base: leave trained out")
        return self

    @property
    def base_learns(self) -> bool:
        """True if the base, or low-rank weights next to it, learn."""
        return bool(self.trained) or self.lora is not None

    @property
    def needs_labels(self) -> bool:
        """True if it learns from labeled patches, which only the bundled scenes have."""
        return self.stage == "align" or max(self.keep.evidence, self.ground_weight, self.evidence_weight) > 0


def bundled_recipes() -> list[str]:
    """Return the names of the bundled recipes, sorted."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.toml"))


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe by bundled name (`tiny/base`) or from a `.toml` file.

    Raises:
        UnknownNameError: no such file or bundled recipe.
        InputError: a field is missing, unknown or out of range; the message names it.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        if Path(name_or_path).suffix == ".toml":
            raise UnknownNameError(f"recipe file {name_or_path} does not exist")
        known = bundled_recipes()
        close = get_close_matches(name_or_path, known, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UnknownNameError(
            f"no recipe {name_or_path!r}: {hint}give a .toml file or one of {', '.join(known)} (adallava train --help "
            "says what each trains)"
        )
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except RecursionError as error:
        raise InputError(f"recipe {path.name}: it is nested too deeply") from error
    except ValidationError as error:
        found = [(".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in error.errors()]
        raise InputError(f"recipe {path.name}: {'; '.join(': '.join(filter(None, pair)) for pair in found)}") from error
    except ValueError as error:  # of TOML's form, of UTF-8, and of whole numbers with thousands of digits
        raise InputError(f"recipe {path.name}: {error}") from error


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """Return the recipe with another number of steps.

    Raises:
        InputError: if `steps` is not positive, or the stage takes no steps.
    """
    if recipe.optimisation is None:
        raise InputError(f"--steps {steps}: stage {recipe.stage!r} takes no steps; its questions are search.questions")
    if not 1 <= steps <= MAX_COUNT:
        raise InputError(f"--steps {steps}: give at least 1 and at most {MAX_COUNT}")
    return recipe.model_copy(update={"optimisation": recipe.optimisation.model_copy(update={"steps": steps})})
