"""The layers in Keras 3, on any of its backends: the table's formulas, its own statistics; this wing needs Keras."""

try:
    from evonorm.keras.conversion import Account, Site, convert
    from evonorm.keras.interchange import from_torch, to_torch
    from evonorm.keras.kecams import from_kecam, to_kecam
    from evonorm.keras.layer import NormActivation
except ModuleNotFoundError as error:
    if error.name != "keras":
        raise
    raise ModuleNotFoundError("evonorm.keras needs Keras 3: pip install 'evonorm[keras]'", name="keras") from error

__all__ = ["Account", "NormActivation", "Site", "convert", "from_kecam", "from_torch", "to_kecam", "to_torch"]
