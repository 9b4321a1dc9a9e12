"""An `evaluate` metric: bits per UTF-8 byte, from the nats of pieces of text and the bytes of each."""

import datasets
import evaluate

from tinygpt_hf.evaluation.metrics import bits_per_byte

_DESCRIPTION = "Bits of a language model per UTF-8 byte of text, which is comparable between tokenizers."
_INPUTS = """
Args:
    predictions: nats (the sum of -ln p over the tokens) of each piece of text: a token, a window, a document.
    references: UTF-8 bytes of each piece.
Returns:
    bits_per_byte
Example:
    Four bytes in two tokens of probability 1/4 each:
    compute(predictions=[2.7726], references=[4]) gives bits_per_byte 1.0.
"""


class BitsPerByte(evaluate.Metric):
    """Bits per byte, averaged over bytes and not over pieces."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=datasets.Features(features)
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        return {"bits_per_byte": bits_per_byte(float(sum(predictions)), int(sum(references)))}
