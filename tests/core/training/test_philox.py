"""Noise of a counter."""

from __future__ import annotations

import pytest
import torch

from igm_cli.core.philox import WORD, NormalRows, normal_rows, philox


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((WORD, WORD, WORD, WORD), (WORD, WORD), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_words_are_those_of_the_paper(counter, key, words):
    """The known answers that Random123 is published with."""
    one, two, three, four = (torch.tensor([word, 7]) for word in counter)
    assert " ".join(f"{int(word[0]):08x}" for word in philox((one, two, three, four), key)) == words


def test_a_row_does_not_depend_on_the_others():
    whole = normal_rows((3, 5), range(8), seed=2**61 + 7)
    assert torch.equal(normal_rows((3, 5), range(2, 6), seed=2**61 + 7), whole[2:6])
    assert len(whole.unique()) == whole.numel()
    assert not torch.equal(normal_rows((3, 5), range(8), seed=2**61 + 8), whole)


def test_rows_drawn_ahead_are_the_same():
    ahead = NormalRows(5, torch.device("cpu"), 8)
    for rows in (range(2, 4), range(4, 6), range(8, 12), range(3, 5), range(40, 60)):
        assert torch.equal(ahead.rows((3, 5), rows), normal_rows((3, 5), rows, 5))
    assert ahead.drawn == range(40, 60)
    far = 2**33
    assert torch.equal(
        ahead.rows((2,), range(far, far + 1))[0], normal_rows((2,), range(far - 3, far + 3), 5)[3]
    )
    assert not torch.equal(normal_rows((2,), range(far, far + 1), 5), normal_rows((2,), range(1), 5))


def test_samples_are_normal_and_independent():
    samples = normal_rows((4, 64, 64), range(16), seed=3).double()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = (samples.pow(power).mean() - moment).abs()
        assert error < 4 * (spread / samples.numel()) ** 0.5
    rows = samples.flatten(1)
    for other in (rows.roll(1, 0), rows.roll(1, 1), rows.roll(16384 // 4, 1)):  # pairs of Box and Muller, too
        assert (rows * other).mean().abs() < 4 / rows.numel() ** 0.5


@pytest.mark.gpu
def test_a_gpu_draws_the_same(gpu):
    here, there = (normal_rows((3, 64, 96), range(5, 9), 11, device) for device in ("cpu", gpu))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-6)
