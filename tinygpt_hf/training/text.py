"""Prepare the tokenizer and the rows of a run, from its folder or from the text, and report them."""

from tinygpt_hf.errors import UsageError
from tinygpt_hf.rows.bestfit import BestFitRows
from tinygpt_hf.rows.build import Prepared, check_length, shown_rows
from tinygpt_hf.rows.preparation import (
    find_rows,
    find_tokenizer,
    holds_conversations,
    make_tokenizer,
    save_tokenizer,
)
from tinygpt_hf.rows.report import tokenizer_line
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.tokenizing.chat_template import add_chat_format
from tinygpt_hf.training.log import Console


def prepare_text(run):
    """Return (tokenizer, rows, ids of new tokens), reused if they exist, else trained and tokenized into the run folder.

    For conversations, a tokenizer without a chat template gets ChatML, and the tokens added for it are the new ones. With
    --streaming only the first window of rows is read here. The main process reads more until the run is closed.
    """
    folder, say, data, corpus = run.folder, run.console.say, run.data, run.corpus
    fallback = run.model.model_name_or_path
    tokenizer = find_tokenizer(folder / "tokenizer", corpus, run.tokenizer_settings, fallback)
    report, new_tokens = None, []
    if tokenizer is not None and not tokenizer.chat_template and holds_conversations(corpus, folder / "rows"):
        new_tokens = add_chat_format(tokenizer)
        words = ", ".join(tokenizer.convert_ids_to_tokens(new_tokens)) or "none"
        say(f"the tokenizer has no chat template: it is given ChatML; new tokens: {words}")
    if tokenizer is None:
        tokenizer, report = make_tokenizer(corpus, run.tokenizer_settings)
        say(tokenizer_line(tokenizer, report))
    rows = find_rows(corpus, tokenizer, folder / "rows", run.closing, run.is_main)
    run.console.close()
    if report is not None:
        save_tokenizer(tokenizer, report, folder / "tokenizer")
    report_rows(rows, data, run.console)
    if rows.validation is None:
        raise UsageError(f"the rows in {rows.train.folder.parent} have no validation part", "one", "make them again")
    check_length(rows.train.num_tokens, data.block_size)
    if data.packing == "bestfit" and not data.streaming:
        rows.train = BestFitRows(rows.train.folder, data.block_size)
    if data.packing == "bestfit" and data.document_mask:
        rows.validation = BestFitRows(rows.validation.folder, data.block_size)
    shown = rows.train.first if data.streaming else rows.train
    if data.packing == "bestfit":
        say(shown.description)
    for line in shown_rows(shown, tokenizer, data.show_rows, data.block_size):
        say(line)
    return tokenizer, rows, new_tokens


def report_rows(rows: Prepared, data: DataArguments, console: Console) -> None:
    """Print the number of tokens and documents; for reused rows print only their notes."""
    if rows.reused:
        for note in rows.notes:
            console.say(f"note: {note}")
        return
    if data.streaming:
        kept = f"rows: {rows.train.num_tokens} tokens of {rows.train.num_documents} documents to begin with, "
        kept += f"{rows.validation.num_tokens} held out; more text is read while the model trains"
    else:
        documents = rows.train.num_documents + rows.validation.num_documents
        kept = f"rows: kept {rows.kept} of {rows.encoded} tokens of {documents} documents"
    console.say("; ".join([kept, *rows.remarks]))
