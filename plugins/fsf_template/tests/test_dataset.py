from pathlib import Path

import pytest

from fsf_template.dataset import TemplateDataset
from fsframework import UserError, part, write_image
from fsframework.testing import check_dataset, portrait


def test_contract() -> None:
    check_dataset(TemplateDataset, most=40)


def test_a_folder(tmp_path: Path) -> None:
    for person in range(4):
        (tmp_path / f"p{person}").mkdir()
        write_image(tmp_path / f"p{person}" / "one.png", portrait(), synthetic=False)
    (tmp_path / "p0" / "notes.txt").touch()
    check_dataset(TemplateDataset, root=str(tmp_path))


def test_a_folder_without_faces(tmp_path: Path) -> None:
    data = TemplateDataset(TemplateDataset.Options(root=tmp_path), 64, part("detectors", "mtcnn"), "all")
    with pytest.raises(UserError, match="no face was found"):
        data.load()
