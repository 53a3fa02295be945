"""Real data sets, downloaded once and checked, and toy sets in the plane."""

from icnn_rl.data.files import data_folder
from icnn_rl.data.images import Digits, Faces, load_mnist, load_olivetti
from icnn_rl.data.multi_label import MultiLabelSplit, load_bibtex, load_delicious
from icnn_rl.data.synthetic import SYNTHETIC, make_synthetic

__all__ = [
    "SYNTHETIC",
    "Digits",
    "Faces",
    "MultiLabelSplit",
    "data_folder",
    "load_bibtex",
    "load_delicious",
    "load_mnist",
    "load_olivetti",
    "make_synthetic",
]
