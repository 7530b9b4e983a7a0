"""What a family may be able to do besides the core of `family_contract`: a protocol a capability, a function that asks.

A family that has the methods has the capability; nothing is registered. What code can do is here; what one loaded
model has (its tower a class token, say) is in `Family.provides`.
"""
