"""Detect the language of a text with py3langid: naive Bayes on byte n-grams, 139 languages, model in the wheel (4.6 MB).

    language_scores("Der Hund lief nach Hause.")        # {"de": 0.93, "lb": 0.02, ...}, summing to 1

py3langid is langid.py (Lui and Baldwin 2012), retrained by A. Barbaresi. docs/corpus.md reports its accuracy.
"""

import difflib
import functools

from tinygpt_hf.errors import UsageError

LOOKED_AT = 2000  # characters from the beginning, middle and end; more do not improve the result
NO_LANGUAGE = "zxx"  # ISO 639-2: no linguistic content


def language_scores(text: str) -> dict[str, float]:
    """Map ISO 639 codes to probabilities, most likely first. A text without letters is `zxx`."""
    if len(text) > 3 * LOOKED_AT:
        middle = (len(text) - LOOKED_AT) // 2
        text = "\n".join((text[:LOOKED_AT], text[middle : middle + LOOKED_AT], text[-LOOKED_AT:]))
    if not any(map(str.isalpha, text)):
        return {NO_LANGUAGE: 1.0}
    return dict(_detector().rank(" ".join(text.split())))


def check_languages(codes: list[str]) -> None:
    """Raise UsageError if py3langid is not installed or does not know one of the codes."""
    if not codes:
        return
    try:
        known = _detector().labels
    except ImportError:
        raise UsageError(
            "py3langid is not installed", "it, for --languages", "run pip install 'tinygpt_hf[data]', or use --scripts"
        ) from None
    for code in codes:
        if code not in known:
            near = difflib.get_close_matches(code, known, 3, 0.5)
            raise UsageError(
                f"--languages names {code!r}",
                f"codes of ISO 639, of {len(known)} that are known",
                f"did you mean {' or '.join(near)}?" if near else "try --languages en de",
            )


@functools.cache
def _detector():
    """Load the detector once per process: 100 MB, under a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
