"""Test the plot of a run: the position of every loss, and the absence of foreign text."""

import xml.etree.ElementTree as ElementTree

import pytest

from tinygpt_hf.cards.loss_curve import loss_curve

SVG = "{http://www.w3.org/2000/svg}"


def test_every_loss_is_drawn_at_its_place():
    lines = [{"step": step, "loss": loss} for step, loss in ((1, 6.0), (2, 5.0), (6, 2.0))]
    picture = ElementTree.fromstring(
        loss_curve({"": [*lines, {"step": 3, "eval_loss": 4.0}, {"step": 6, "eval_loss": 3.0}]})
    )
    line = next(path.get("d") for path in picture.iter(f"{SVG}path") if path.get("fill") == "none")
    (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, point.split())) for point in line[1:].split("L"))
    assert (x2 - x0) / (x1 - x0) == pytest.approx(5, rel=0.01) and (y2 - y0) / (y1 - y0) == pytest.approx(4, rel=0.01)
    (_, first), (x, _) = ((float(dot.get("cx")), float(dot.get("cy"))) for dot in picture.iter(f"{SVG}circle"))
    assert x == x2 and first == pytest.approx((y1 + (y2 - y1) / 3), abs=0.2)


def test_the_numbers_of_steps_are_inside_the_picture():
    picture = ElementTree.fromstring(loss_curve({"": [{"step": step, "loss": 2.0} for step in (1, 100_000)]}))
    steps = [(float(t.get("x")), t.text) for t in picture.iter() if t.get("text-anchor") == "middle"]
    assert [text for _, text in steps] == ["0", "20000", "40000", "60000", "80000", "100000"]
    assert all(x + 3.5 * len(text) < 720 for x, text in steps)  # a digit of this size is 7 wide


def test_a_plot_without_points_is_none_and_a_long_one_is_thinned():
    assert loss_curve({"": []}) is None and loss_curve({"": [{"step": 0, "loss": 1.0}]}) is None
    many = [{"step": k, "loss": 1e6 / k, "eval_loss": None} for k in range(1, 100_000)]
    picture = loss_curve({"<b>": many, "x": [{"step": None, "loss": 1.0}]}, {"<i>": 2.0})
    assert len(picture) < 50_000 and "<b>" not in picture and "<i>" not in picture
    ElementTree.fromstring(picture)
