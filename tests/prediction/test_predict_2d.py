"""Pictures in, label maps of the same rows and columns out, by this package and by MONAI through the same bundle."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_unetfamily.bundles import check_source, open_bundle
from monai_unetfamily.evaluation import evaluate_folders
from monai_unetfamily.io import read_label_image2d, write_label_image2d
from monai_unetfamily.prediction import predict_volume
from tests.support.runs import predict

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
UNEVEN = np.zeros((37, 61), np.uint8)  # symmetric under no flip and no transposition, sizes that nothing divides
UNEVEN[3:9, 20:50] = 255
UNEVEN[9:30, 20:24] = 255
UNEVEN[0, 60] = 255


def per_pixel(bundle: Path, weight: Any, bias: Any, first: str = "background") -> Path:
    """Make one linear map a pixel, weight (classes, channels) and bias (classes), its network; it must be trusted."""
    weight, bias = torch.as_tensor(weight, dtype=torch.float), torch.as_tensor(bias, dtype=torch.float)
    file = bundle / "configs/inference.yaml"
    sizes = {"in_channels": weight.shape[1], "out_channels": len(bias), "kernel_size": 1}
    network = {"network_def": {"_target_": "torch.nn.Conv2d", **sizes}}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | network))
    file = bundle / "configs/metadata.json"
    metadata = json.loads(file.read_text())
    metadata["network_data_format"]["inputs"]["image"]["num_channels"] = weight.shape[1]
    names = {str(channel): f"class {channel}" for channel in range(1, len(bias))}
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": first} | names
    file.write_text(json.dumps(metadata))
    torch.save({"weight": weight[..., None, None], "bias": bias}, bundle / "models/model.pt")
    return bundle


def bright(bundle: Path) -> Path:
    """Label 1 where the scaled intensity is above 0.5."""
    return per_pixel(bundle, [[0.0], [1.0]], [0.5, 0.0])


def run_monai(bundle: Path, data: Path, output: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs/inference.yaml"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(data),
        output_dir=str(output),
        device=CPU,
    )
    workflow.initialize()
    workflow.run()


def test_a_pattern_comes_back_at_its_rows_and_columns_by_either_door(bundle_2d: Path, tmp_path: Path) -> None:
    bright(bundle_2d)
    (tmp_path / "in").mkdir()
    write_label_image2d(UNEVEN, tmp_path / "in/uneven.png")
    (case_result,) = predict(open_bundle(bundle_2d, CPU, trust=True), [tmp_path / "in"], tmp_path / "out")
    assert case_result.output == tmp_path / "out/uneven.png"
    np.testing.assert_array_equal(read_label_image2d(case_result.output), UNEVEN > 0)
    run_monai(bundle_2d, tmp_path / "in", tmp_path / "monai")
    assert (tmp_path / "monai/uneven_seg.png").read_bytes() == case_result.output.read_bytes()


def test_monai_takes_every_format_of_pictures(bundle_2d: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.tif", "c.TIFF"):
        Image.fromarray(UNEVEN).save(tmp_path / "in" / name)
    (tmp_path / "in/notes.txt").touch()
    run_monai(bright(bundle_2d), tmp_path / "in", tmp_path / "monai")
    written = sorted((tmp_path / "monai").iterdir())
    assert [file.name for file in written] == ["a_seg.png", "b_seg.png", "c_seg.png"]
    for file in written:
        np.testing.assert_array_equal(read_label_image2d(file), UNEVEN > 0)


def test_monai_gives_the_same_labels_of_every_picture(bundle_2d: Path, pictures: Path, tmp_path: Path) -> None:
    """The random network of the bundle, whose windows overlap and are larger than some pictures' sides."""
    case_results = list(predict(open_bundle(bundle_2d, CPU), [pictures / "imagesTr"], tmp_path / "out"))
    run_monai(bundle_2d, pictures / "imagesTr", tmp_path / "monai")
    labels = 0
    for case_result in case_results:
        assert case_result.output is not None, case_result.error
        ours = read_label_image2d(case_result.output)
        monais = read_label_image2d(tmp_path / "monai" / case_result.output.name.replace(".png", "_seg.png"))
        np.testing.assert_array_equal(ours, monais)
        labels += len(np.unique(ours))
    assert labels > len(case_results) == 24  # the random network does tell pixels apart


def test_the_format_of_a_picture_changes_no_label(bundle_2d: Path, pictures: Path, tmp_path: Path) -> None:
    source = sorted((pictures / "imagesTr").iterdir())[3]
    values = np.asarray(Image.open(source))
    Image.fromarray(values).save(tmp_path / "a.tif", compression="tiff_lzw")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "b.png")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "c.tiff")
    opened = open_bundle(bundle_2d, CPU)
    expected = predict_volume(opened, source)
    assert len(np.unique(expected)) > 1
    for name in ("a.tif", "b.png", "c.tiff"):
        np.testing.assert_array_equal(predict_volume(opened, tmp_path / name), expected)


def test_rgb_is_three_channels(bundle_2d: Path, tmp_path: Path) -> None:
    per_pixel(bundle_2d, [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [0.0, 0, 0])
    strongest = np.arange(37 * 61).reshape(37, 61) // 7 % 3
    Image.fromarray((np.eye(3)[strongest] * 200).astype(np.uint8)).save(tmp_path / "photo.png")
    labels = predict_volume(open_bundle(bundle_2d, CPU, trust=True), tmp_path / "photo.png")
    np.testing.assert_array_equal(labels, strongest)


def test_more_than_255_labels_are_written_in_16_bits(bundle_2d: Path, tmp_path: Path) -> None:
    """Class k where the scaled intensity is nearest to k / 300: k x - k^2 / 600 is largest there."""
    k = torch.arange(301.0)
    per_pixel(bundle_2d, 300 * k[:, None], -(k**2) / 2)
    write_label_image2d(UNEVEN, tmp_path / "uneven.png")
    (case_result,) = predict(open_bundle(bundle_2d, CPU, trust=True), [tmp_path / "uneven.png"], tmp_path / "out")
    assert case_result.output is not None, case_result.error
    with Image.open(case_result.output) as picture:
        assert (picture.mode, picture.size) == ("I;16", (61, 37))
    np.testing.assert_array_equal(read_label_image2d(case_result.output), 300 * (UNEVEN > 0))


def test_sizes_come_back_where_the_bundle_resizes(bundle_2d: Path, tmp_path: Path) -> None:
    """Class scores are interpolated back: a picture that the bundle doubles keeps its rows and columns."""
    file = bright(bundle_2d) / "configs/inference.yaml"
    config = yaml.safe_load(file.read_text())
    zoom = {"_target_": "Zoomd", "keys": "image", "zoom": 2, "keep_size": False}
    back = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    config["preprocessing"]["transforms"].insert(2, zoom)
    config["postprocessing"]["transforms"].insert(0, back | {"nearest_interp": False})
    file.write_text(yaml.safe_dump(config))
    write_label_image2d(UNEVEN, tmp_path / "uneven.png")
    labels = predict_volume(open_bundle(bundle_2d, CPU, trust=True), tmp_path / "uneven.png")
    assert labels.shape == UNEVEN.shape
    assert (labels != (UNEVEN > 0)).mean() < 0.05  # edges and corners are smoothed


def test_a_reader_that_swaps_rows_and_columns_is_refused(bundle_2d: Path, tmp_path: Path) -> None:
    file = bright(bundle_2d) / "configs/inference.yaml"
    file.write_text(file.read_text().replace("monai_unetfamily.transforms.Image2DReader", "PILReader"))
    write_label_image2d(UNEVEN[:, :37], tmp_path / "square.png")
    with pytest.raises(ValueError, match="square.png: .* its reader turned; name .*Image2DReader"):
        predict_volume(open_bundle(bundle_2d, CPU, trust=True), tmp_path / "square.png")


def test_bundles_for_volumes_and_for_pictures_refuse_each_others(bundle: Path, bundle_2d: Path, tmp_path: Path) -> None:
    write_label_image2d(UNEVEN, tmp_path / "xray.png")
    ramp = np.arange(8000, dtype=np.int16).reshape(20, 20, 20)
    nib.save(nib.Nifti1Image(ramp, np.eye(4)), tmp_path / "ct.nii.gz")
    inputs = [tmp_path / "ct.nii.gz", tmp_path / "xray.png"]
    done, refused = predict(open_bundle(bundle, CPU), inputs, tmp_path / "3d")
    assert done.error is None
    assert str(refused.error) == (
        f"{tmp_path / 'xray.png'}: is a picture, and bundle is for volumes; give NIfTI files, or choose a 2-D bundle."
    )
    refused, done = predict(open_bundle(bundle_2d, CPU), inputs, tmp_path / "2d")
    assert done.error is None
    assert str(refused.error) == (
        f"{tmp_path / 'ct.nii.gz'}: is no PNG or TIFF, and bundle_2d takes these alone; convert it, or choose a bundle "
        "for volumes."
    )


def test_pictures_unlike_what_the_metadata_states_are_refused(bundle_2d: Path, tmp_path: Path) -> None:
    rgb, deep, negative = tmp_path / "rgb.png", tmp_path / "deep.png", tmp_path / "negative.tif"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(rgb)
    write_label_image2d(UNEVEN.astype(int) + 1, deep)
    Image.fromarray(UNEVEN.astype(np.float32) - 0.5).save(negative)
    opened = open_bundle(bundle_2d, CPU)
    with pytest.raises(ValueError, match=r"rgb.png: has 3 channels, and bundle_2d takes 1 \("):
        predict_volume(opened, rgb)
    for file, found in ((deep, "1 to 256"), (negative, "-0.5 to 254.5")):
        with pytest.raises(ValueError, match=f"{file.name}: has values from {found}, and bundle_2d takes 0 to 255;"):
            predict_volume(opened, file)
    file = bundle_2d / "configs/metadata.json"
    file.write_text(file.read_text().replace("[0, 255]", "[]"))  # no limit
    for source in (deep, negative):
        assert predict_volume(opened, source).shape == UNEVEN.shape
    file.write_text(file.read_text().replace('"value_range": []', '"value_range": [0]'))
    with pytest.raises(ValueError, match="metadata.json: .* a value_range of two numbers or none"):
        predict_volume(opened, deep)


def test_a_2d_bundle_with_another_reader_takes_volumes(bundle_2d: Path, tmp_path: Path) -> None:
    """A slice a file, say: its own reader decides."""
    file = bundle_2d / "configs/inference.yaml"
    nib.save(nib.Nifti1Image(UNEVEN.astype(np.int16)[..., None], np.eye(4)), tmp_path / "slice.nii.gz")
    with pytest.raises(ValueError, match="takes these alone"):
        check_source(bundle_2d, [tmp_path / "slice.nii.gz"])
    file.write_text(file.read_text().replace("monai_unetfamily.transforms.Image2DReader", "NibabelReader"))
    check_source(bundle_2d, [tmp_path / "slice.nii.gz"])


def test_a_bad_picture_is_reported_and_the_others_are_done(bundle_2d: Path, tmp_path: Path) -> None:
    write_label_image2d(UNEVEN, tmp_path / "good.png")
    (tmp_path / "short.png").write_bytes((tmp_path / "good.png").read_bytes()[:-30])
    Image.fromarray(np.zeros((5, 5, 4), np.uint8)).save(tmp_path / "alpha.tif")
    case_results = list(predict(open_bundle(bundle_2d, CPU), [tmp_path], tmp_path / "out"))
    assert [case_result.error is None for case_result in case_results] == [False, True, False]
    assert [file.name for file in (tmp_path / "out").glob("*.png")] == ["good.png"]
    with pytest.raises(ValueError, match="is an input that would be replaced"):
        list(predict(open_bundle(bundle_2d, CPU), [tmp_path / "good.png"], tmp_path))


def test_overlapping_classes_of_a_picture_are_split(bundle_2d: Path, tmp_path: Path) -> None:
    """One PNG cannot hold them; a mask a class can, and is scored as such."""
    per_pixel(bundle_2d, [[10.0], [10.0]], [-2.0, -8.0], first="all")  # above 0.2, and above 0.8
    config = yaml.safe_load((bundle_2d / "configs/inference.yaml").read_text())
    config["inferer"]["background"] = False
    config["postprocessing"]["transforms"][0] = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
    (bundle_2d / "configs/inference.yaml").write_text(yaml.safe_dump(config))
    grey = np.where(UNEVEN > 0, 100, 0).astype(np.uint8)
    grey[4:7, 30:40] = 250
    write_label_image2d(grey, tmp_path / "grey.png")
    opened = open_bundle(bundle_2d, CPU, trust=True)
    with pytest.raises(ValueError, match=r"grey.png: one PNG cannot hold the classes \['all', 'class 1'\].*--split"):
        list(predict(opened, [tmp_path / "grey.png"], tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    (done,) = predict(opened, [tmp_path / "grey.png"], tmp_path / "out", split=True)
    assert done.output == tmp_path / "out/grey"
    np.testing.assert_array_equal(read_label_image2d(done.output / "all.png"), grey > 50)
    np.testing.assert_array_equal(read_label_image2d(done.output / "class_1.png"), grey > 200)
    scores = evaluate_folders(tmp_path / "out", tmp_path / "out")
    assert [(score.case, score.label, score.dice, score.unit) for score in scores] == [
        ("grey", "all", 1.0, "px"),
        ("grey", "class_1", 1.0, "px"),
    ]
