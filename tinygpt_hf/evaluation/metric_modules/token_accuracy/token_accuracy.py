"""An `evaluate` metric: the share of tokens predicted right, from rows of predicted and actual ids."""

import datasets
import evaluate
import numpy

from tinygpt_hf.evaluation.metrics import IGNORED, accuracy

_DESCRIPTION = "Share of tokens for which the model's likeliest token is right."
_INPUTS = """
Args:
    predictions: rows of token ids, the likeliest token at each position.
    references: rows of the actual ids, of the same lengths; -100 where a token does not count.
Returns:
    accuracy
Example:
    compute(predictions=[[5, 6, 7]], references=[[5, 9, -100]]) gives accuracy 0.5.
"""


class TokenAccuracy(evaluate.Metric):
    """Token accuracy, averaged over tokens and not over rows."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        correct = tokens = 0
        for predicted, actual in zip(predictions, references, strict=True):
            predicted, actual = numpy.asarray(predicted), numpy.asarray(actual)
            counted = actual != IGNORED
            correct += int((predicted == actual)[counted].sum())
            tokens += int(counted.sum())
        return {"accuracy": accuracy(correct, tokens)}
