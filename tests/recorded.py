"""A reporter that remembers what it heard."""

from tinygpt_hf.reading.reporter import Reporter


class Recorded(Reporter):
    """`encodings`: (bytes of text, tokens, share of the files read in this stage) after all that was encoded."""

    def __init__(self):
        self.said, self.rests, self.stages, self.encodings, self.reads = [], [], [], [], []
        self.total = None

    def say(self, line):
        self.said.append(line)

    def rest(self, seconds):
        self.rests.append(seconds)

    def stage(self, title, total):
        self.stages.append(title)
        self.total, self.reads = total, []

    def read(self, path, count, data=None):
        self.reads.append(count)

    def encoded(self, size, tokens):
        self.encodings.append((size, tokens, self.total and sum(self.reads) / self.total))
