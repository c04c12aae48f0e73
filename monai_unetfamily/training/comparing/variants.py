"""Ways of a trained bundle to predict that need no weights of their own."""

from dataclasses import replace

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.inference.choices import choices
from monai_unetfamily.inference.settings import Settings
from monai_unetfamily.nets import UNetPlusPlus

Way = tuple[str, str]  # a network and a variant of it
_PLAIN = Settings(previews=False)


def variants(bundle: Bundle) -> dict[str, Settings]:
    """How a trained bundle predicts: as it is (""), and in ways of its own that need no other weights.

    A UNet++ is cut at each level but its last; a guide's gate is opened.
    """
    found, names = {"": _PLAIN}, [name for label, name in bundle.names.items() if label]
    chosen = choices(bundle)
    if isinstance(bundle.network, UNetPlusPlus) and bundle.network.joined == "all":
        found |= {f"L{level}": replace(_PLAIN, level=level) for level in chosen.levels[:-1]}
    if chosen.presence:
        found["ungated"] = replace(_PLAIN, presence=dict.fromkeys(names, 0.0))
    return found
