"""The text of a run: the tokenizer and the rows that are there already, or made now, and what is said of it."""

from contextlib import ExitStack
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.rows.bestfit import BestFitRows
from tinygpt_hf.rows.build import shown_rows
from tinygpt_hf.rows.preparation import (
    find_rows,
    find_tokenizer,
    holds_conversations,
    make_tokenizer,
    save_tokenizer,
)
from tinygpt_hf.rows.stream import open_stream
from tinygpt_hf.tokenizing.chat_template import add_chat_format
from tinygpt_hf.training.log import Console, tokenizing_bar


def prepare(
    folder: Path,
    model,
    data,
    tokenizer,
    training,
    console: Console,
    is_main: bool = True,
    closing: ExitStack | None = None,
):
    """(tokenizer, rows, new tokens): those that are there already, else trained and tokenized now, into the run folder.

    A tokenizer without a chat template is given one for conversations; its new tokens are what it lacked. Streamed, the rows
    are those of the first window; the main process reads on until `closing` closes.
    """
    tok = find_tokenizer(folder / "tokenizer", data, tokenizer, model.model_name_or_path, training.seed)
    report, new_tokens = None, []
    if tok is not None and not tok.chat_template and holds_conversations(data, folder / "rows", training.seed):
        new_tokens = add_chat_format(tok)
        words = ", ".join(tok.convert_ids_to_tokens(new_tokens)) or "none"
        console.say(f"the tokenizer has no chat template: it is given ChatML; new tokens: {words}")
    if tok is None:
        console.bar("training the tokenizer", None)
        tok, report = make_tokenizer(data, tokenizer, training.seed)
        console.say(
            f"tokenizer: {len(tok)} tokens, {report['bytes_per_token']} bytes per token on held-out text (bytes: 1.0)"
        )
    progress = tokenizing_bar(console)
    if data.streaming:
        rows = open_stream(data, tok, folder / "rows", training.seed, is_main, closing, console.say, progress)
    else:
        rows = find_rows(data, tok, folder / "rows", training.seed, progress)
    console.close()
    if report is not None:
        save_tokenizer(tok, report, folder / "tokenizer")
    if rows.reused:
        for note in rows.notes:
            console.say(f"note: {note}")
    elif data.streaming:
        kept = f"rows: {rows.train.num_tokens} tokens of {rows.train.num_documents} documents to begin with, "
        held_out = f"{rows.validation.num_tokens} held out; the text is read on while the model trains"
        console.say("; ".join([kept + held_out, *rows.remarks]))
    else:
        documents = rows.train.num_documents + rows.validation.num_documents
        kept = f"rows: kept {rows.kept} of {rows.encoded} tokens of {documents} documents"
        console.say("; ".join([kept, *rows.remarks]))
    if rows.validation is None:
        raise UsageError(f"the rows in {rows.train.folder.parent} have no validation part", "one", "make them again")
    if rows.train.num_tokens <= data.block_size:
        raise UsageError(
            f"the training text has {rows.train.num_tokens} tokens",
            f"at least {data.block_size + 1} for one row",
            "use more text or a smaller --block_size",
        )
    if data.packing == "bestfit":
        rows.train = BestFitRows(rows.train.folder, data.block_size)
        if data.document_mask:
            rows.validation = BestFitRows(rows.validation.folder, data.block_size)
        console.say(rows.train.description)
    shown = rows.train.first if data.streaming else rows.train
    for line in shown_rows(shown, tok, data.show_rows, data.block_size):
        console.say(line)
    return tok, rows, new_tokens
