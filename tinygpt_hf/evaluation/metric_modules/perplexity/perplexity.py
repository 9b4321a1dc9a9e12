"""An `evaluate` metric: loss and perplexity, from the nats of pieces of text and the tokens in each."""

import datasets
import evaluate

from tinygpt_hf.evaluation.metrics import mean_loss, perplexity

_DESCRIPTION = "Loss (nats per token) and perplexity (its exponential) of a language model, weighted by tokens."
_INPUTS = """
Args:
    predictions: nats (the sum of -ln p over the tokens) of each piece of text: a token, a window, a document.
    references: the number of predicted tokens in each piece.
Returns:
    loss, perplexity
Example:
    A token of probability 1/2 and two tokens of 1/4 each:
    compute(predictions=[0.6931, 2.7726], references=[1, 2]) gives loss 1.1552 and perplexity 3.1748.
"""


class Perplexity(evaluate.Metric):
    """Loss and perplexity, averaged over tokens and not over pieces."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=datasets.Features(features)
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        nats, tokens = float(sum(predictions)), int(sum(references))
        return {"loss": mean_loss(nats, tokens), "perplexity": perplexity(nats, tokens)}
