"""The three planes that a radiologist looks at."""

from napari.components import ViewerModel
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

_PLANES = {  # the axis of (S-I, A-P, R-L) that slides, then those of rows and columns
    "Axial": ((0, 1, 2), "From below: the patient's right is on the left"),
    "Coronal": ((1, 0, 2), "From the front: the patient's right is on the left"),
    "Sagittal": ((2, 0, 1), "From the patient's left: anterior is on the left"),
}


class PlanesPanel(QWidget):
    """A button for each plane; napari's own rolling of axes would show coronal slices lying on their side."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for name, (order, meaning) in _PLANES.items():
            button = QPushButton(name, objectName=f"plane_{name.lower()}", toolTip=meaning)
            button.clicked.connect(lambda _, order=order: self.show_plane(order))
            row.addWidget(button)

    def show_plane(self, order: tuple[int, ...]) -> None:
        """Let the last three axes have this order, in 2-D, and fit the view."""
        dims = self.viewer.dims
        extra = dims.ndim - 3
        if extra >= 0:
            dims.ndisplay = 2
            dims.order = (*range(extra), *(axis + extra for axis in order))
            self.viewer.reset_view()
