"""What a class is, in codes that other programs know: SNOMED CT where it has one, else a code of our own.

A name gets a code only where it can mean but one thing: "liver", "left kidney", "kidney_left". Whatever else a class
is, its bundle must say (`bundles.codes`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

OWN_SCHEME = "99UNETFAMILY"  # a private one, as "99" says (PS3.16, 8.2)
_LONGEST = 64  # characters of a meaning (LO)


class Code(NamedTuple):
    """A code, in the order that DICOM's tables have: ("10200004", "SCT", "Liver")."""

    value: str
    scheme: str  # designator: "SCT" is SNOMED CT
    meaning: str


class Codes(NamedTuple):
    """What a segment is: of which category (PS3.16, CID 7150), of which type, and which of these, as left or right."""

    category: Code
    type: Code
    modifiers: tuple[Code, ...] = ()


@dataclass(frozen=True)
class Maker:
    """What made a segmentation, and what its classes are.

    Attributes:
        name, version: of the bundle; of an ensemble of all, joined.
        hashed: of its weights and configs, SHA-256, 64 digits.
        codes: label id -> what the class is.
    """

    name: str
    version: str
    hashed: str
    codes: Mapping[int, Codes]


ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
_REGION = Code("309825002", "SCT", "Spatial and Relational Concept")  # claims no more than that it is somewhere
_SIDES = {"left": Code("7771000", "SCT", "Left"), "right": Code("24028007", "SCT", "Right")}
# value, meaning, as pydicom's dictionary has them
_ORGANS = {
    "aorta": ("15825003", "Aorta"),
    "brain": ("12738006", "Brain"),
    "colon": ("71854001", "Colon"),
    "duodenum": ("38848004", "Duodenum"),
    "esophagus": ("32849002", "Esophagus"),
    "gallbladder": ("28231008", "Gallbladder"),
    "heart": ("80891009", "Heart"),
    "inferior vena cava": ("64131007", "Inferior vena cava"),
    "left atrium": ("82471001", "Left atrium"),
    "liver": ("10200004", "Liver"),
    "pancreas": ("15776009", "Pancreas"),
    "prostate": ("41216001", "Prostate"),
    "rectum": ("34402009", "Rectum"),
    "right atrium": ("73829009", "Right atrium"),
    "small intestine": ("30315005", "Small intestine"),
    "spine": ("421060004", "Spine"),
    "spleen": ("78961009", "Spleen"),
    "stomach": ("69695003", "Stomach"),
    "trachea": ("44567001", "Trachea"),
    "urinary bladder": ("89837001", "Bladder"),
    "uterus": ("35039007", "Uterus"),
}
_PAIRED = {
    "adrenal gland": ("23451007", "Adrenal gland"),
    "femur": ("71341001", "Femur"),
    "hippocampus": ("5366008", "Hippocampus"),
    "kidney": ("64033007", "Kidney"),
    "lung": ("39607008", "Lung"),
}


def known_codes(name: str) -> Codes | None:
    """The codes of a class that is called as an organ is; None for any other name.

    >>> known_codes("Left_Kidney").type.meaning, known_codes("kidney left").modifiers
    ('Kidney', (Code(value='7771000', scheme='SCT', meaning='Left'),))
    >>> known_codes("liver tumour") is None
    True
    """
    words = name.casefold().replace("_", " ").split()
    if organ := (_ORGANS | _PAIRED).get(" ".join(words)):
        return Codes(ANATOMY, _snomed(*organ))
    for side, bare in ((words[:1], words[1:]), (words[-1:], words[:-1])):
        if (organ := _PAIRED.get(" ".join(bare))) and side[0] in _SIDES:
            return Codes(ANATOMY, _snomed(*organ), (_SIDES[side[0]],))
    return None


def own_codes(owner: str, name: str) -> Codes:
    """The codes of a class that has none: another owner's class of the same name has another.

    >>> own_codes("prostate_mr", "zone").type == own_codes("hippocampus_mr", "zone").type
    False
    """
    value = sha256(f"{owner}\n{name}".encode()).hexdigest()[:16]
    return Codes(_REGION, Code(value, OWN_SCHEME, plain(name)))


def plain(text: str, most: int = _LONGEST) -> str:
    """The text as DICOM's short values hold it: so many characters, no backslash, which parts values.

    >>> plain("T1\\\\T2")
    'T1/T2'
    """
    return text.replace("\\", "/")[:most].strip()


def _snomed(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)
