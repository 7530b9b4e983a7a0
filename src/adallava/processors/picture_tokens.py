"""How many places in a prompt a processor holds for an image, where its files do not say."""

from typing import Any


def complete_processor(processor: Any, config: Any) -> None:
    """Give a processor the model's own figures for those that its files leave open; what they say stays.

    Folders from before transformers 4.46 say neither the size of a patch nor which of the tower's tokens reach the LLM,
    and some name these and leave the class token out, which transformers then takes for none.

    Args:
        processor: of a family whose processor counts patches, fresh from its files; of others nothing is changed.
        config: of the model.
    """
    if not hasattr(processor, "num_additional_image_tokens"):
        return
    if processor.patch_size is None:
        processor.patch_size = config.vision_config.patch_size
    if processor.vision_feature_select_strategy is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    if processor.vision_feature_select_strategy == "default" and not processor.num_additional_image_tokens:
        # "default" leaves the first token of the tower out, so there is one besides the patches.
        processor.num_additional_image_tokens = 1
