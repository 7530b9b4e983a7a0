"""What comes with the package, a line each; nothing of it is imported before it is asked for."""

SELECTORS = {
    "random": "adallava.selection.random:RandomSelector",
    "uniform": "adallava.selection.uniform:UniformSelector",
    "pool": "adallava.selection.pool:PoolSelector",
    "none": "adallava.selection.none:NoneSelector",
    "budget-token": "adallava.selection.budget_token:BudgetTokenSelector",
    "question": "adallava.selection.question:QuestionSelector",
    "fastv": "adallava.selection.fastv:FastVSelector",
    "sparsevlm": "adallava.selection.sparsevlm:SparseVLMSelector",
    "pyramiddrop": "adallava.selection.pyramiddrop:PyramidDropSelector",
    "cls-attention": "adallava.selection.cls_attention:ClsAttentionSelector",
    "feature-norm": "adallava.selection.feature_norm:FeatureNormSelector",
    "downsample": "adallava.selection.downsample:DownsampleSelector",
    "prumerge": "adallava.selection.prumerge:PruMergeSelector",
    "prumerge-k": "adallava.selection.prumerge_k:PruMergeKSelector",
    "prumerge-plus": "adallava.selection.prumerge_plus:PruMergePlusSelector",
    "prumerge-plus-k": "adallava.selection.prumerge_plus_k:PruMergePlusKSelector",
    "visionzip": "adallava.selection.visionzip:VisionZipSelector",
    "divprune": "adallava.selection.divprune:DivPruneSelector",
    "cdpruner": "adallava.selection.cdpruner:CDPrunerSelector",
    "mmtok": "adallava.selection.mmtok:MMTokSelector",
    "tome": "adallava.selection.tome:ToMeSelector",
    "hiprune": "adallava.selection.hiprune:HiPruneSelector",
    "vispruner": "adallava.selection.vispruner:VisPrunerSelector",
    "dart": "adallava.selection.dart:DartSelector",
    "scope": "adallava.selection.scope:ScopeSelector",
}
"""Selection methods."""

SCHEDULERS = {
    "layers": "adallava.scheduling.layers:LayersScheduler",
    "heads": "adallava.scheduling.heads:HeadsScheduler",
    "adallava-layers": "adallava.scheduling.adallava_layers:AdallavaLayersScheduler",
    "adallava-heads": "adallava.scheduling.adallava_heads:AdallavaHeadsScheduler",
    "first": "adallava.scheduling.first:FirstScheduler",
    "spaced": "adallava.scheduling.spaced:SpacedScheduler",
    "random": "adallava.scheduling.random_layers:RandomScheduler",
    "fixed": "adallava.scheduling.fixed:FixedScheduler",
}
"""Schedulers of the LLM's layers."""

FAMILIES = {
    "gemma3": "adallava.families.gemma3:Gemma3Family",
    "idefics3": "adallava.families.idefics3:Idefics3Family",
    "internvl": "adallava.families.internvl:InternVLFamily",
    "llava": "adallava.families.llava:LlavaFamily",
    "llava_next": "adallava.families.llava_next:LlavaNextFamily",
    "llava_onevision": "adallava.families.llava_onevision:LlavaOnevisionFamily",
    "mistral3": "adallava.families.mistral3:Mistral3Family",
    "smolvlm": "adallava.families.idefics3:SmolVLMFamily",
    "qwen2_vl": "adallava.families.qwen2_vl:Qwen2VLFamily",
    "qwen2_5_vl": "adallava.families.qwen2_5_vl:Qwen25VLFamily",
    "qwen3_vl": "adallava.families.qwen3_vl:Qwen3VLFamily",
    "qwen3_vl_moe": "adallava.families.qwen3_vl:Qwen3VLMoeFamily",
}
"""Model families, by the `model_type` of their config."""

TASKS = {
    "lmms": "adallava.integrations.lmms_eval.lmms_task:load_lmms_task",
}
"""Sources of tasks, by the part of a task's name before the colon."""
