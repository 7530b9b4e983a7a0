"""What methods share that drop once, after a layer of the LLM that still reads all tokens."""

from adallava.errors import AdallavaError, UnsupportedModeError
from adallava.selection.layer_contract import Drop


def check_layer(name: str, layer: int) -> None:
    """Refuse a layer below 1: before it there is nothing to choose by.

    Raises:
        AdallavaError: naming the method and the layer.
    """
    if layer < 1:
        raise AdallavaError(f"{name}: layer is {layer}; at least one layer must read all tokens: give 1 or more")


def one_drop(name: str, layer: int, num_layers: int, keep_count: int) -> tuple[Drop, ...]:
    """Return the one drop after `layer` layers, scored by the last of them.

    Raises:
        UnsupportedModeError: if no layer would be left after it.
    """
    if num_layers <= layer:
        raise UnsupportedModeError(
            f"{name} drops tokens after layer {layer}, and this LLM has {num_layers}: nothing would be "
            f"saved; give a layer below {num_layers}"
        )
    return (Drop(layer, layer - 1, keep_count),)
