"""Label maps come back on their own grids, header kept, and agree with MONAI's own way through the same bundle."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data.meta_tensor import MetaTensor

from monai_unetfamily.bundles import Bundle, open_bundle
from monai_unetfamily.nets import create_network
from monai_unetfamily.prediction import Settings, adapt, predict_volume
from tests.support.runs import predict

CPU = torch.device("cpu")


@pytest.fixture
def opened(bundle: Path) -> Bundle:
    return open_bundle(bundle, CPU)


def images(phantoms: Path) -> list[Path]:
    return sorted((phantoms / "imagesTr").glob("*.nii.gz"))


@pytest.mark.slow
def test_labels_lie_on_each_inputs_own_grid_with_its_header(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    sources = images(phantoms)
    case_results = list(predict(opened, [phantoms / "imagesTr"], tmp_path / "out"))
    assert [case_result.study.files[0] for case_result in case_results] == sources
    for case_result in case_results:
        assert case_result.output is not None, case_result.error
        source, labels = nib.load(case_result.study.files[0]), nib.load(case_result.output)
        assert labels.shape == source.shape
        assert labels.affine.tobytes() == source.affine.tobytes()
        for field in ("sform_code", "qform_code", "xyzt_units", "descrip"):
            assert labels.header[field] == source.header[field]
        assert labels.get_data_dtype() == np.uint8
        assert set(np.unique(np.asarray(labels.dataobj))) <= set(opened.names)


@pytest.mark.slow
def test_agrees_with_monais_own_run_of_the_bundle(bundle: Path, opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    """Anisotropic, flipped, permuted and oblique phantoms, through `inference.yaml` as MONAI runs it."""
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs/inference.yaml"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(phantoms / "imagesTr"),
        output_dir=str(tmp_path / "monai"),
        device=CPU,
    )
    workflow.initialize()
    workflow.run()
    labels = 0
    for source in images(phantoms):
        reference = nib.load(tmp_path / "monai" / source.name.replace(".nii.gz", "_seg.nii.gz"))
        ours = predict_volume(opened, source)
        np.testing.assert_array_equal(ours, np.asarray(reference.dataobj))
        np.testing.assert_allclose(reference.affine, nib.load(source).affine, atol=1e-5)
        labels += len(np.unique(ours))
    assert labels > len(images(phantoms))  # the random network does tell voxels apart


@pytest.mark.exhaustive
@pytest.mark.slow
def test_monais_command_with_overrides_gives_what_our_settings_give(
    bundle: Path, opened: Bundle, phantoms: Path, tmp_path: Path
) -> None:
    """`python -m monai.bundle run` from the bundle's folder, with parts changed as MONAI's users write it."""
    where = ["--dataset_dir", str(phantoms / "imagesTr"), "--output_dir", str(tmp_path)]
    changes = ["--displayable_configs#overlap", "0.9", "--postprocessing#transforms#2#output_postfix", "pred"]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"]
    done = subprocess.run([*command, *where, *changes], cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    wider = adapt(opened, Settings(overlap=0.9))
    changed = 0
    for source in images(phantoms):
        theirs = np.asarray(nib.load(tmp_path / source.name.replace(".nii.gz", "_pred.nii.gz")).dataobj)
        np.testing.assert_array_equal(predict_volume(wider, source), theirs)
        changed += (predict_volume(opened, source) != theirs).sum()
    assert changed > 0


@pytest.mark.slow
def test_the_same_patient_gets_the_same_labels_on_a_permuted_and_flipped_grid(
    opened: Bundle, phantoms: Path, tmp_path: Path
) -> None:
    source = nib.load(images(phantoms)[0])
    flipped = source.as_reoriented([[2, -1], [0, 1], [1, -1]])
    nib.save(flipped, tmp_path / "flipped.nii.gz")
    straight = predict_volume(opened, images(phantoms)[0])
    turned = nib.Nifti1Image(predict_volume(opened, tmp_path / "flipped.nii.gz").astype(np.uint8), flipped.affine)
    back = nib.as_closest_canonical(turned)
    expected = nib.as_closest_canonical(nib.Nifti1Image(straight.astype(np.uint8), source.affine))
    assert (np.asarray(back.dataobj) != np.asarray(expected.dataobj)).mean() < 1e-3  # rounding at class borders


@pytest.mark.slow
def test_a_bad_file_is_reported_and_the_others_are_done(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    good = images(phantoms)[0]
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(good.read_bytes()[:-400])
    broken, done = predict(opened, [bad, good], tmp_path / "out")
    assert broken.output is None
    assert "bad.nii.gz" in str(broken.error)
    assert done.output == tmp_path / "out" / good.name
    assert [file.name for file in (tmp_path / "out").glob("*.nii.gz")] == [good.name]


def test_nan_voxels_are_refused_with_their_count(opened: Bundle, tmp_path: Path) -> None:
    voxels = np.zeros((20, 20, 20), np.float32)
    voxels[:3, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "nan.nii.gz")
    with pytest.raises(ValueError, match="nan.nii.gz: .*3"):
        predict_volume(opened, tmp_path / "nan.nii.gz")


def test_damage_that_only_a_checksum_shows_is_refused(opened: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "flipped.nii.gz"
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    nib.save(nib.Nifti1Image(noise, np.eye(4)), file)
    content = bytearray(file.read_bytes())
    content[-6] ^= 1  # within the checksum
    file.write_bytes(content)
    with pytest.raises(ValueError, match="flipped.nii.gz: "):
        predict_volume(opened, file)


@pytest.mark.slow
def test_damaged_weights_are_no_empty_mask(bundle: Path, phantoms: Path) -> None:
    """Neither such as are not finite, nor such as make scores that are not."""
    file = bundle / "models/model.pt"
    weights = torch.load(file, weights_only=True)
    for value, message in ((np.nan, "holds numbers that are not finite"), (3e38, "scores that are not finite")):
        next(iter(weights.values())).fill_(value)
        torch.save(weights, file)
        with pytest.raises(ValueError, match=message):
            predict_volume(open_bundle(bundle, CPU), images(phantoms)[0])


@pytest.mark.slow
def test_a_header_that_two_readers_read_two_ways_is_read_by_its_sform(
    opened: Bundle, phantoms: Path, tmp_path: Path
) -> None:
    """With an sform whose voxel sizes pixdim contradicts, MONAI's reader falls back on a qform of code 0."""
    source = nib.load(images(phantoms)[0])
    image = nib.Nifti1Image(np.asarray(source.dataobj), source.affine)
    image.set_sform(image.affine, 2)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "one_way.nii.gz")
    image.header["pixdim"][1:4] *= 1.02
    nib.save(image, tmp_path / "two_ways.nii.gz")
    one, two = (predict_volume(opened, tmp_path / f"{name}.nii.gz") for name in ("one_way", "two_ways"))
    np.testing.assert_array_equal(one, two)


def test_errors_of_the_bundle_name_the_case(bundle: Path, phantoms: Path) -> None:
    file = bundle / "configs/inference.yaml"
    file.write_text(file.read_text().replace("axcodes: RAS", "axcodes: RRR"))
    with pytest.raises(ValueError, match="phantom_000.nii.gz: (?!applying)"):
        predict_volume(open_bundle(bundle, CPU), images(phantoms)[0])


def ramp() -> nib.Nifti1Image:
    return nib.Nifti1Image(np.arange(8000, dtype=np.float32).reshape(20, 20, 20), np.eye(4))


def test_inputs_are_never_replaced(opened: Bundle, tmp_path: Path) -> None:
    nib.save(ramp(), tmp_path / "ct.nii.gz")
    before = (tmp_path / "ct.nii.gz").read_bytes()
    with pytest.raises(ValueError, match="is an input that would be replaced"):
        list(predict(opened, [tmp_path / "ct.nii.gz"], tmp_path))
    assert (tmp_path / "ct.nii.gz").read_bytes() == before


@pytest.mark.slow
def test_labels_that_are_there_are_replaced_by_request_alone(opened: Bundle, tmp_path: Path) -> None:
    inputs, out = [tmp_path / f"{name}.nii.gz" for name in "abc"], tmp_path / "out"
    for file in inputs:
        nib.save(ramp(), file)
    out.mkdir()
    for name in ("b.nii.gz", "c.nii.gz"):
        (out / name).write_text("by hand")
    with pytest.raises(FileExistsError, match=r"out.b\.nii\.gz: exists, the first of 2 files .*--overwrite"):
        list(predict(opened, inputs, out))
    assert sorted((file.name, file.read_text()) for file in out.iterdir()) == [
        ("b.nii.gz", "by hand"),
        ("c.nii.gz", "by hand"),
    ]
    with pytest.raises(ValueError, match="is an input that would be replaced"):
        list(predict(opened, inputs, tmp_path, overwrite=True))
    case_results = list(predict(opened, inputs, out, overwrite=True))
    assert [nib.load(case_result.output).shape for case_result in case_results if case_result.output] == [
        (20, 20, 20)
    ] * 3


@pytest.mark.slow
@pytest.mark.parametrize("neighbours", [0, 1])
def test_a_2d_network_segments_a_volume_slice_by_slice(bundle: Path, phantoms: Path, neighbours: int) -> None:
    """The volume's labels are those of its slices, each with its neighbours as channels (2.5-D)."""
    file = bundle / "configs/inference.yaml"
    config = yaml.safe_load(file.read_text())
    network = {"spatial_dims": 2, "in_channels": 1 + 2 * neighbours, "out_channels": 6, "features": [4, 8]}
    config["network_def"] = {
        "_target_": "monai_unetfamily.nets.create_network",
        "name": "unetplusplus",
        **network,
    }
    config["inferer"] |= {"roi_size": [48, 48], "slice_axis": 2, "neighbours": neighbours}
    file.write_text(yaml.safe_dump(config))
    weights = create_network("unetplusplus", **network)  # type: ignore[arg-type]
    torch.save(weights.state_dict(), bundle / "models/model.pt")

    labels = predict_volume(open_bundle(bundle, CPU), images(phantoms)[0])

    config["postprocessing"]["transforms"].pop()  # SaveImaged
    parser = ConfigParser(config)
    case = parser.get_parsed_content("preprocessing")({"image": str(images(phantoms)[0])})
    x = case["image"].as_tensor()
    last = x.shape[-1] - 1
    slices = [
        torch.cat([x[..., min(max(z + s, 0), last)] for s in range(-neighbours, neighbours + 1)])
        for z in range(last + 1)
    ]
    pad = (48 - x.shape[1], 48 - x.shape[2])
    padded = [torch.nn.functional.pad(s, (pad[1] // 2, -(-pad[1] // 2), pad[0] // 2, -(-pad[0] // 2))) for s in slices]
    with torch.inference_mode():
        scores = torch.stack([weights.eval()(s[None])[0].softmax(0) for s in padded], dim=-1)
    crop = scores[:, pad[0] // 2 :, pad[1] // 2 :][:, : x.shape[1], : x.shape[2]]
    post = parser.get_parsed_content("postprocessing")
    expected = post({"image": case["image"], "pred": MetaTensor(crop)})["pred"][0].numpy()
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.slow
def test_overlapping_maps_are_never_squeezed_into_one(bundle: Path, phantoms: Path) -> None:
    file = bundle / "configs/inference.yaml"
    file.write_text(file.read_text().replace("argmax: true", "threshold: 0.5"))
    with pytest.raises(ValueError, match="6 overlapping maps, which one label map cannot hold"):
        predict_volume(open_bundle(bundle, CPU), images(phantoms)[0])


def test_labels_off_the_source_grid_are_refused(bundle: Path, phantoms: Path) -> None:
    file = bundle / "configs/inference.yaml"
    lines = [line for line in file.read_text().splitlines() if "Invertd" not in line]
    file.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="must end on the source grid"):
        predict_volume(open_bundle(bundle, CPU), images(phantoms)[0])


@pytest.mark.slow
def test_odd_real_files_give_labels_on_their_grid_or_one_clear_line(
    opened: Bundle, data_dir: Path, tmp_path: Path
) -> None:
    refused = {
        "anatomical.nii": "differ from the value 1 after",  # an MR, all of it above the window of this CT bundle
        "example4d.nii.gz": "4-D where 3-D is meant",
        "example_nifti2.nii.gz": "4-D where 3-D is meant",
        "nifti1.hdr": "nifti1",
        "resampled_anat_moved.nii": "NaN",
        "standard.nii.gz": "voxels of 4 x 5 x 7; 16 or more, and more than one along an axis, are needed",
    }
    files = sorted(f for f in (data_dir / "nifti_odd").iterdir() if ".nii" in f.name or f.suffix == ".hdr")
    assert len(files) == 7
    for case_result in predict(opened, files, tmp_path):
        if case_result.output is None:
            assert refused.pop(case_result.study.files[0].name) in str(case_result.error)
            assert "\n" not in str(case_result.error)
        else:
            source, labels = nib.load(case_result.study.files[0]), nib.load(case_result.output)
            assert labels.shape == source.shape
            assert labels.affine.tobytes() == source.affine.tobytes()
    assert refused == {}


@pytest.mark.slow
def test_a_scan_in_metres_gets_the_labels_and_volumes_of_one_in_mm_and_keeps_its_unit(
    opened: Bundle, phantoms: Path, tmp_path: Path
) -> None:
    source = nib.load(images(phantoms)[0])
    for unit, mm in (("mm", 1), ("meter", 1e-3)):
        scan = nib.Nifti1Image(np.asarray(source.dataobj), np.diag([mm, mm, mm, 1]) @ source.affine)
        scan.header.set_xyzt_units(unit)
        nib.save(scan, tmp_path / f"{unit}.nii.gz")
    metres, plain = predict(opened, [tmp_path / "meter.nii.gz", tmp_path / "mm.nii.gz"], tmp_path / "out")
    assert metres.output is not None, metres.error
    assert plain.output is not None, plain.error
    labels, expected, stored = (nib.load(path) for path in (metres.output, plain.output, tmp_path / "meter.nii.gz"))
    np.testing.assert_array_equal(np.asarray(labels.dataobj), np.asarray(expected.dataobj))
    assert labels.affine.tobytes() == stored.affine.tobytes()
    assert labels.header.get_xyzt_units()[0] == "meter"
    ml = [[row["volume_ml"] for row in case_result.record.classes] for case_result in (metres, plain)]
    assert ml[0] == ml[1]
    assert sum(filter(None, ml[0])) > 0
    assert metres.record.notes == ("the header's unit of length is the metre: lengths are converted to mm",)


@pytest.mark.slow
def test_the_ct_crop_keeps_its_codes(opened: Bundle, data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "spleen_ct_crop" / "ct.nii.gz"
    (case_result,) = predict(opened, [source], tmp_path)
    assert case_result.output is not None, case_result.error
    labels = nib.load(case_result.output)
    assert (int(labels.header["sform_code"]), int(labels.header["qform_code"])) == (2, 0)
    assert labels.affine.tobytes() == nib.load(source).affine.tobytes()
