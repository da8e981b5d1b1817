"""Batches of photos: what is trained on, in which order, as which images, whoever reads them."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from trees import photo, write

from trt_cam.backbone import Preprocessing
from trt_cam.data.catalog import load_dataset
from trt_cam.data.folders import Photos
from trt_cam.data.photos import open_photo
from trt_cam.errors import DatasetError, InputError
from trt_cam.evaluation.measuring import Batches
from trt_cam.metrics.protocols import get_protocol
from trt_cam.runs import World
from trt_cam.training.examples import Examples, open_examples, split_off
from trt_cam.training.order import Order
from trt_cam.training.photos import PhotoBatches, Reading
from trt_cam.training.views import View, drawing

PREPARE = Preprocessing((24, 24), (0.5, 0.4, 0.3), (0.2, 0.3, 0.5), "bicubic")
RANDAUGMENT = "rand-m9-mstd0.5-inc1"


def silent(text: str) -> None:
    raise AssertionError(f"nothing was to be said, but: {text}")


def tree(root: Path, **classes: int) -> Path:
    """So many photos of noise in each class folder, each of another size."""
    for name, count in classes.items():
        for number in range(count):
            photo(root / name / f"{number}.jpg", (30 + number, 40 - number))
    return root


def two_animals(root: Path) -> Path:
    """YOLO's layout: eight photos with a cat, a dog, or both, and a ninth with nothing."""
    write(root / "data.yaml", ["train: images", "names: [cat, dog]"])
    for number, lines in enumerate([["0"], ["1"], ["0", "1"], ["0", "1"], ["0"], ["1"], ["0", "1"], ["1"], []]):
        photo(root / "images" / f"{number}.jpg")
        write(root / "labels" / f"{number}.txt", (f"{label} 0.5 0.5 0.2 0.2" for label in lines))
    return root


@pytest.fixture
def animals(tmp_path: Path) -> Examples:
    return open_examples(tree(tmp_path / "animals", cat=4, dog=5, eel=4))


def batches(examples: Examples, augment: str = "timm", **more: object) -> PhotoBatches:
    """Batches of 3, with all that is random by default."""
    chance = {"policy": RANDAUGMENT, "erasing": 0.5} if augment == "timm" else {}
    settings: dict[str, object] = {"batch": 3, "say": silent} | more
    return PhotoBatches(examples, View(PREPARE, augment, **chance), **settings)  # type: ignore[arg-type]


def same(ones: list[dict[str, Tensor]], others: list[dict[str, Tensor]]) -> None:
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        assert one.keys() == other.keys() == {"images", "label", "index"}
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


class TestOrder:
    def test_an_epoch_takes_each_row_once_and_in_another_order_than_the_next(self) -> None:
        order = Order(12, batch=4)
        first, second = (np.concatenate(list(order.steps(epoch))).tolist() for epoch in (0, 1))
        assert sorted(first) == sorted(second) == list(range(12))
        assert first != second != list(range(12))
        assert first == np.concatenate(list(Order(12, batch=4).steps(0))).tolist()
        assert first != np.concatenate(list(Order(12, batch=4, seed=1).steps(0))).tolist()

    @pytest.mark.parametrize("shuffle", [True, False])
    @pytest.mark.parametrize("count", [24, 25, 29, 31])
    def test_processes_see_together_what_one_sees(self, count: int, shuffle: bool) -> None:
        alone = Order(count, batch=6, seed=4, shuffle=shuffle)
        shares = [Order(count, batch=2, world=World(rank, 3), seed=4, shuffle=shuffle) for rank in range(3)]
        steps = [list(share.steps(7)) for share in shares]
        assert {len(one) for one in steps} == {len(alone)} == {len(shares[0])}
        for together, *parts in zip(alone.steps(7), *steps, strict=True):
            rows = np.concatenate(parts)
            np.testing.assert_array_equal(rows[rows >= 0], together)

    def test_shuffled_steps_are_whole_and_others_leave_no_row_out(self) -> None:
        assert [len(rows) for rows in Order(11, batch=4).steps(0)] == [4, 4]
        plain = list(Order(11, batch=4, shuffle=False).steps(0))
        assert np.concatenate(plain).tolist() == list(range(11))

    def test_a_process_that_no_row_is_left_for_gets_none(self) -> None:
        assert [rows.tolist() for rows in Order(5, 2, World(1, 2), shuffle=False).steps(0)] == [[2, 3], [-1]]

    def test_it_begins_in_the_middle(self) -> None:
        order = Order(20, batch=3, seed=2)
        for one, other in zip(list(order.steps(5))[4:], order.steps(5, start=4), strict=True):
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize(
        ("batch", "size", "most"), [(13, 1, "12"), (7, 2, "6"), (5, 3, "4, .* each of 3 processes")]
    )
    def test_a_batch_larger_than_the_data(self, batch: int, size: int, most: str) -> None:
        with pytest.raises(InputError, match=f"batch must be at most {most}"):
            Order(12, batch, World(0, size))
        assert len(Order(12, batch, World(0, size), shuffle=False)) == 1

    def test_numbers_out_of_range(self) -> None:
        with pytest.raises(InputError, match="batch must be an integer of at least 1, got 0"):
            Order(12, 0)
        with pytest.raises(InputError, match="seed must be an integer of at least 0, got -1"):
            Order(12, 1, seed=-1)


class TestExamples:
    def test_class_folders(self, animals: Examples) -> None:
        assert animals.classes == ("cat", "dog", "eel")
        np.testing.assert_array_equal(animals.labels, [0] * 4 + [1] * 5 + [2] * 4)
        np.testing.assert_array_equal(animals.rows, range(13))

    def test_of_several_splits_that_to_train_on(self, tmp_path: Path) -> None:
        tree(tmp_path / "train", cat=2, dog=1), tree(tmp_path / "val", cat=5, dog=5)
        assert len(open_examples(tmp_path)) == 3
        assert len(open_examples(tmp_path, split="val")) == 10

    def test_an_empty_class_folder(self, tmp_path: Path) -> None:
        tree(tmp_path, cat=2, dog=2)
        (tmp_path / "cow").mkdir()
        with pytest.raises(DatasetError, match=r"photos of each class, but 'cow' of 3 in .* has none"):
            Examples.of(load_dataset(tmp_path), np.arange(3))
        (tmp_path / "yak").mkdir()
        with pytest.raises(DatasetError, match="'cow' and 1 more of 4 in"):
            open_examples(tmp_path)

    def test_one_class_only(self, tmp_path: Path) -> None:
        for indices in (None, np.arange(5)):
            with pytest.raises(DatasetError, match="at least two classes to tell apart, but all .* are of 'cat'"):
                Examples.of(load_dataset(tree(tmp_path, cat=2)), indices)

    def test_photos_without_label(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"needs labels, but none of 2 photos in .* has one"):
            Examples.of(Photos(tree(tmp_path, cat=2)))

    def test_labels_become_the_classes_that_a_model_has(self, animals: Examples) -> None:
        known = Examples.of(animals.data, indices=np.array([7, 3, 900]))
        assert set(known.labels.tolist()) == {7, 3, 900}
        assert known.labels[0] == 7 and known.classes == animals.classes

    @pytest.mark.parametrize("indices", [[7, 3], [7, 3, -1]])
    def test_a_label_that_the_model_has_no_class_for(self, animals: Examples, indices: list[int]) -> None:
        with pytest.raises(InputError, match=r"model's classes, but 'eel/0.jpg' is of class 'eel'"):
            Examples.of(animals.data, indices=np.array(indices))

    def test_numbered_classes_may_have_gaps_where_a_model_has_them_all(self, tmp_path: Path) -> None:
        lists = tmp_path / "metadata" / "train"
        write(lists / "image_ids.txt", ["a.jpg", "b.jpg"])
        write(lists / "class_labels.txt", ["a.jpg,0", "b.jpg,4"])
        data = load_dataset(tmp_path, "wsol")
        assert Examples.of(data, np.arange(10)).labels.tolist() == [0, 4]
        with pytest.raises(DatasetError, match="photos of each class, but '1' and 2 more of 5"):
            Examples.of(data)


class TestSplit:
    def test_a_share_of_each_class(self, tmp_path: Path) -> None:
        whole = open_examples(tree(tmp_path, cat=10, dog=20, eel=2, fox=1))
        train, val = split_off(whole, 0.2, seed=5)
        assert np.bincount(val.labels, minlength=4).tolist() == [2, 4, 1, 0]
        assert sorted([*train.rows, *val.rows]) == list(range(33))
        again, other = split_off(whole, 0.2, seed=5)[1], split_off(whole, 0.2, seed=6)[1]
        assert again.rows.tolist() == val.rows.tolist() != other.rows.tolist()
        for part in (train, val):
            np.testing.assert_array_equal(part.labels, whole.labels[part.rows])
            assert part.classes == whole.classes

    def test_of_a_model_s_many_classes_those_that_occur(self, animals: Examples) -> None:
        known = Examples.of(animals.data, indices=np.array([7, 3, 900]))
        assert sorted(split_off(known, 0.25)[1].labels.tolist()) == [3, 7, 900]

    def test_a_photo_of_several_classes_is_in_one_part(self, tmp_path: Path) -> None:
        whole = Examples.of(load_dataset(two_animals(tmp_path)))
        names = [whole.data.photo_name(row) for row in whole.rows.tolist()]
        assert len(set(names)) < len(names)
        for seed in range(20):
            parts = split_off(whole, 0.5, seed)
            assert {names[row] for row in parts[0].rows}.isdisjoint(names[row] for row in parts[1].rows)
            assert set(parts[0].labels.tolist()) == set(whole.labels.tolist())

    @pytest.mark.parametrize("share", [0, 0.6, True, "0.1"])
    def test_a_share_out_of_range(self, animals: Examples, share: float) -> None:
        with pytest.raises(InputError, match="above 0 and at most 0.5"):
            split_off(animals, share)


class TestViews:
    def view(self, animals: Examples, view: View, row: int = 1, seed: int = 0) -> Tensor:
        with drawing(seed):
            return view(open_photo(animals.data[row].path))

    def test_none_is_what_an_evaluation_sees(self, animals: Examples) -> None:
        evaluation = Batches(
            animals.data, animals.rows, PREPARE, PREPARE.size, get_protocol("maxboxacc_v2"), batch_size=1
        )
        seen = evaluation.read(1).pixels
        assert seen is not None
        torch.testing.assert_close(self.view(animals, View(PREPARE, "none")), seen, rtol=0, atol=0)

    def test_flip_is_that_or_its_mirror(self, animals: Examples) -> None:
        plain = self.view(animals, View(PREPARE, "none"))
        turned = [
            torch.equal(self.view(animals, View(PREPARE, "flip"), seed=seed), plain.flip(-1)) for seed in range(60)
        ]
        kept = [torch.equal(self.view(animals, View(PREPARE, "flip"), seed=seed), plain) for seed in range(60)]
        assert all(one != other for one, other in zip(turned, kept, strict=True))
        assert 20 <= sum(turned) <= 40

    def test_crop_is_any_part_of_a_larger_squashed_photo_or_its_mirror(self, animals: Examples) -> None:
        plain = self.view(animals, View(PREPARE, "none", size=(16, 20)))
        parts = {
            (top, left, mirrored): part.flip(-1) if mirrored else part
            for top in range(3)
            for left in range(4)
            for mirrored in (False, True)
            for part in [plain[:, top : top + 14, left : left + 17]]
        }
        view, seen = View(PREPARE, "crop", size=(14, 17), resize=(16, 20)), set()
        for seed in range(200):
            drawn = self.view(animals, view, seed=seed)
            seen |= {place for place, part in parts.items() if torch.equal(part, drawn)}
        assert seen == parts.keys()

    @pytest.mark.parametrize(("size", "resize"), [(224, 256), (448, 512), ((28, 56), (32, 64))])
    def test_what_is_cropped_is_an_eighth_larger_by_default(self, size: object, resize: object) -> None:
        view = View(PREPARE, "crop", size=size)  # type: ignore[arg-type]
        assert view.resize == (resize if isinstance(resize, tuple) else (resize, resize))

    def test_timm_on_a_whole_photo_is_the_photo_or_its_mirror(self, tmp_path: Path) -> None:
        picture = Image.open(photo(tmp_path / "a.png", (50, 50)))
        pixels = np.asarray(picture.resize((24, 24), Image.Resampling.BICUBIC), dtype=np.float64) / 255
        wanted = torch.from_numpy(((pixels - PREPARE.mean) / PREPARE.std).transpose(2, 0, 1)).float()
        view = View(PREPARE, "timm", scale=(1.0, 1.0))
        for seed in range(8):
            with drawing(seed):
                seen = view(open_photo(picture))
            match = [torch.allclose(one, wanted, rtol=0, atol=1e-5) for one in (seen, seen.flip(-1))]
            assert any(match)

    def test_timm_takes_parts_of_the_least_share(self, tmp_path: Path) -> None:
        """On a ramp from left to right the range of values tells how much of the width a part has."""
        ramp = np.tile(np.linspace(0, 255, 400).astype(np.uint8)[None, :, None], (400, 1, 3))
        view = View(Preprocessing((64, 64), (0, 0, 0), (1, 1, 1)), "timm", scale=(0.8, 1.0))
        shares = []
        for seed in range(60):
            with drawing(seed):
                seen = view(open_photo(ramp))
            shares.append(float(seen.max() - seen.min()) / (1 - 1 / 64))
        assert 0.8 * np.sqrt(3 / 4) - 0.03 < min(shares) < 0.9 < max(shares) <= 1.02

    def test_policy_and_erasing_change_the_picture(self, animals: Examples) -> None:
        plain, erased, coloured = (
            self.view(animals, View(PREPARE, "timm", **more))  # type: ignore[arg-type]
            for more in ({}, {"erasing": 1.0}, {"policy": RANDAUGMENT})
        )
        share = float((plain != erased).any(dim=0).float().mean())
        assert 0.01 < share < 0.5
        assert float((plain != coloured).any(dim=0).float().mean()) > 0.5

    @pytest.mark.parametrize("policy", ["rand-m10-inc1", "v0"])
    def test_the_strongest_operations_leave_something_of_a_photo(self, animals: Examples, policy: str) -> None:
        view = View(PREPARE, "timm", policy=policy)  # each would keep no bit of a channel in some photos of a hundred
        flat = [len(self.view(animals, view, seed=seed).unique()) <= 3 for seed in range(200)]
        assert sum(flat) <= 3  # of one colour, by little contrast and then one bit

    @pytest.mark.parametrize("augment", ["flip", "crop", "timm"])
    def test_a_large_photo_is_read_smaller_and_looks_the_same(self, tmp_path: Path, augment: str) -> None:
        waves = np.linspace(0, 40, 1000)
        levels = 127 + 100 * np.sin(waves[None, :] + np.sin(waves[:800, None]))  # (800, 1000)
        whole = Image.fromarray(np.stack([levels, levels[::-1], levels[:, ::-1]], axis=-1).astype(np.uint8))
        whole.save(tmp_path / "a.jpg", quality=95)
        prepare = Preprocessing((96, 96), (0, 0, 0), (1 / 255,) * 3)
        view = View(prepare, augment, scale=(1.0, 1.0))
        photo = view.open(tmp_path / "a.jpg")
        assert photo.size == (800, 1000) and photo.image.size == {"crop": (500, 400)}.get(augment, (250, 200))
        with drawing(3):
            reduced = view(photo)
        with drawing(3):
            full = view(open_photo(tmp_path / "a.jpg"))
        assert 0 < float((reduced - full).abs().mean()) < 1
        assert View(prepare, "none").open(tmp_path / "a.jpg").image.size == (1000, 800)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"augment": "mosaic"}, "augment must be one of none, flip, crop, timm, got 'mosaic'"),
            ({"augment": "timm", "policy": "rnd-m9"}, "policy must be one that timm knows"),
            ({"augment": "timm", "erasing": 2}, "erasing must be a number from 0 to 1"),
            ({"augment": "timm", "scale": (0.9, 0.5)}, "scale must be two shares"),
            ({"augment": "crop", "resize": 20}, r"resize must be at least .* \(24, 24\), got \(20, 20\)"),
        ],
    )
    def test_options_out_of_range(self, settings: dict[str, object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            View(PREPARE, **settings)  # type: ignore[arg-type]


class TestBatches:
    def test_photos_with_their_labels(self, animals: Examples) -> None:
        read = list(batches(animals, "none").epoch(3))
        assert len(read) == len(batches(animals)) == 4
        view = View(PREPARE, "none")
        for batch in read:
            assert batch["images"].shape == (3, 3, 24, 24)
            for image, label, index in zip(*batch.values(), strict=True):
                sample = animals.data[int(index)]
                assert sample.label == label
                torch.testing.assert_close(image, view(open_photo(sample.path)), rtol=0, atol=0)

    @pytest.mark.parametrize("augment", ["crop", "timm"])
    def test_the_same_whenever_and_wherever_they_are_read(self, animals: Examples, augment: str) -> None:
        wanted = list(batches(animals, augment).epoch(2))
        random.seed(8), np.random.seed(8), torch.manual_seed(8)
        again = batches(animals, augment)
        list(again.epoch(1))
        same(list(again.epoch(2)), wanted)
        same(list(batches(animals, augment, workers=2).epoch(2)), wanted)
        halves = [batches(animals, augment, batch=1, world=World(rank, 3)).epoch(2) for rank in range(3)]
        joined = [{name: torch.cat([part[name] for part in parts]) for name in parts[0]} for parts in zip(*halves)]  # noqa: B905
        same(joined, wanted)

    def test_epochs_and_seeds_differ(self, animals: Examples) -> None:
        def images(seed: int, epoch: int) -> dict[int, Tensor]:
            read = batches(animals, seed=seed).epoch(epoch)
            return {
                int(row): image for batch in read for row, image in zip(batch["index"], batch["images"], strict=True)
            }

        first, second, third = images(0, 0), images(0, 1), images(1, 0)
        for other in (second, third):
            assert not any(torch.equal(first[row], other[row]) for row in first.keys() & other.keys())

    def test_what_workers_read_from_can_be_sent_to_them(self, animals: Examples) -> None:
        view = View(PREPARE, "timm", policy=RANDAUGMENT, erasing=1.0)
        here = Reading(animals, view, seed=3)
        there = pickle.loads(pickle.dumps(here))
        item, sent = here[(1, 4)], there[(1, 4)]
        assert item.image is not None and torch.equal(item.image, sent.image) and item[1:] == sent[1:]

    def test_photos_of_one_batch_do_not_share_their_chance(self, animals: Examples) -> None:
        for row in range(1, 13):
            animals.data[row].path.write_bytes(animals.data[0].path.read_bytes())
        images = next(batches(animals).epoch(0))["images"]
        assert not any(torch.equal(images[one], images[other]) for one, other in ((0, 1), (0, 2), (1, 2)))

    @pytest.mark.parametrize("workers", [0, 1])
    def test_no_generator_is_moved(self, animals: Examples, workers: int) -> None:
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index, union-attr]
        list(batches(animals, workers=workers).epoch(0))
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index, union-attr]
        assert torch.get_rng_state().tolist() == before[2]

    @pytest.mark.parametrize("workers", [0, 1])
    def test_an_epoch_is_gone_on_with(self, animals: Examples, workers: int) -> None:
        found = batches(animals, workers=workers)
        wanted = list(found.epoch(1))
        next(found.epoch(0))  # and leave it
        same(list(found.epoch(1, start=2)), wanted[2:])

    def test_without_shuffling_all_rows_in_their_order(self, animals: Examples) -> None:
        read = list(batches(animals, "none", shuffle=False).epoch(0))
        assert torch.cat([batch["index"] for batch in read]).tolist() == list(range(13))
        last = list(batches(animals, "none", shuffle=False, world=World(2, 3), batch=4).epoch(0))[-1]
        assert last["index"].tolist() == last["label"].tolist() == [-1]

    def test_a_part_keeps_the_rows_of_the_whole(self, animals: Examples) -> None:
        _, val = split_off(animals, 0.3, seed=1)
        assert val.labels.tolist() == [0, 1, 1, 2]
        (batch,) = batches(val, "none", shuffle=False, batch=4).epoch(0)
        assert batch["index"].tolist() == val.rows.tolist() != list(range(4))
        assert batch["label"].tolist() == val.labels.tolist()

    def test_a_photo_is_turned_upright(self, tmp_path: Path) -> None:
        tree(tmp_path, cat=1, dog=1)
        picture = Image.open(tmp_path / "cat" / "0.jpg")
        turn = Image.Exif()
        turn[0x0112] = 6
        picture.save(tmp_path / "cat" / "0.png", exif=turn)
        (tmp_path / "cat" / "0.jpg").unlink()
        (batch,) = batches(open_examples(tmp_path), "none", shuffle=False).epoch(0)
        upright = open_photo(picture.transpose(Image.Transpose.ROTATE_270))
        torch.testing.assert_close(batch["images"][0], View(PREPARE, "none")(upright), rtol=0, atol=0)


class TestUnreadable:
    @pytest.fixture
    def said(self) -> list[str]:
        return []

    def broken(self, animals: Examples, *rows: int) -> None:
        for row in rows:
            animals.data[row].path.write_bytes(b"\xff\xd8 no picture")

    def error(self, found: PhotoBatches) -> str:
        """What an epoch ends with; not by pytest.raises, which would keep the loader and its workers."""
        try:
            list(found.epoch(0))
        except DatasetError as error:
            assert "\n" not in str(error)
            return str(error)
        return ""

    def test_another_of_its_class_stands_in_and_it_is_said_once(self, animals: Examples, said: list[str]) -> None:
        self.broken(animals, 3)
        found = batches(animals, "none", shuffle=False, unreadable=0.1, say=said.append)
        for epoch in range(2):
            first, second, *_ = found.epoch(epoch)
            assert second["index"].tolist() == [3, 4, 5] and second["label"].tolist() == [0, 1, 1]
            torch.testing.assert_close(second["images"][0], first["images"][0], rtol=0, atol=0)  # round to the first
        assert len(said) == 1 and "cat/3.jpg is not a picture" in said[0] and "\n" not in said[0]
        assert list(found.unreadable) == [3]

    def test_whoever_reads_takes_the_same_in_its_place(self, animals: Examples, said: list[str]) -> None:
        self.broken(animals, 4, 5, 8)
        one, other = (batches(animals, unreadable=0.5, say=said.append, workers=workers).epoch(1) for workers in (0, 2))
        same(list(one), list(other))
        assert len(said) == 2 * len(set(said))

    def test_a_photo_that_goes_missing_and_one_that_claims_too_much(self, animals: Examples, said: list[str]) -> None:
        animals.data[6].path.unlink()
        animals.data[7].path.write_bytes(b"P6 20000 20000 255\n")
        list(batches(animals, "none", shuffle=False, unreadable=0.5, say=said.append).epoch(0))
        assert "does not exist" in said[0] and "megapixels" in said[1] and len(said) == 2

    def test_more_than_are_allowed(self, animals: Examples, said: list[str]) -> None:
        self.broken(animals, 0, 5)
        found = batches(animals, unreadable=0.05, say=said.append, shuffle=False)
        with pytest.raises(DatasetError, match="at most 5% of 13 photos may be unreadable, but 2 are by now") as caught:
            list(found.epoch(0))
        assert "\n" not in str(caught.value) and len(said) == 2

    def test_one_of_a_few_may_be(self, animals: Examples, said: list[str]) -> None:
        self.broken(animals, 0)
        list(batches(animals, say=said.append, shuffle=False).epoch(0))
        assert len(said) == 1
        assert "at most 0% of 13 photos" in self.error(batches(animals, unreadable=0, say=said.append, shuffle=False))

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_class_of_which_none_is_left(self, animals: Examples, said: list[str], workers: int) -> None:
        self.broken(animals, 0, 1, 2, 3)
        found = batches(animals, unreadable=0.5, say=said.append, workers=workers, shuffle=False)
        assert "no photo of the class of cat/0.jpg can be read" in self.error(found)


@pytest.mark.parametrize(
    ("folder", "photos", "classes"),
    [("tiny-imagenet-25", 2500, 25), ("caltech-101", 1515, 101), ("ilsvrc-10/train", 4000, 10)],
)
def test_real_photos(shared: Path, folder: str, photos: int, classes: int) -> None:
    whole = open_examples(shared / "data" / folder)
    assert len(whole) == photos and len(whole.classes) == classes
    train, val = split_off(whole, 0.1)
    assert np.bincount(val.labels).tolist() == np.rint(np.bincount(whole.labels) / 10).astype(int).tolist()
    view = View(Preprocessing(), "timm", policy=RANDAUGMENT, erasing=0.25)
    batch = next(PhotoBatches(train, view, batch=16, say=silent).epoch(0))
    assert batch["images"].shape == (16, 3, 224, 224) and bool(batch["images"].isfinite().all())
    names = [whole.data[row].path.parts for row in batch["index"].tolist()]
    assert all(whole.classes[label] in name for label, name in zip(batch["label"].tolist(), names, strict=True))
