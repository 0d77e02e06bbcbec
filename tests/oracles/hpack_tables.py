"""Has the HPACK of PyPI read what ours writes, write what ours reads, and judge broken blocks.

    hpack_tables.py --lines PATH [--connections N] [--seed N]

PATH is the example `hpack_lines` of crates/http2. Connections last for many blocks, while tables
change their sizes. Prints one line; exits 1 at the first disagreement, which it shows.
"""

import argparse
import random
import subprocess
import sys

import hpack

TABLE_BYTES_MAX = 16384  # as in hpack_lines.rs
LIST_BYTES_MAX = 1 << 20
BLOCKS = 40  # of a connection
NAMES = [b":method", b":path", b":status", b"cookie", b"x-a", b"x-b", b"x-request-id", b"content-length", b"date", b"te"]


class Lines:
    """The example program."""

    def __init__(self, path):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([path], stdin=pipe, stdout=pipe, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")


def fail(what, *shown):
    print(f"hpack disagrees: {what}")
    for one in shown:
        print(f"  {one!r:.400}")
    sys.exit(1)


def octets(draw, most):
    return bytes(draw.randrange(256) for _ in range(draw.randrange(most)))


def fields(draw):
    """Some that come again and again, some that never do."""
    made = []
    for _ in range(draw.randrange(12)):
        name = draw.choice(NAMES) if draw.random() < 0.9 else octets(draw, 30)
        kind = draw.random()
        value = b"value-%d" % draw.randrange(20) if kind < 0.7 else octets(draw, 60) if kind < 0.9 else b"x" * draw.randrange(3000)
        made.append((name, value, draw.random() < 0.1))
    return made


def written(fields):
    return " ".join(f"{name.hex()}:{value.hex()}:{'n' if never else 'u'}" for name, value, never in fields)


def read(line):
    split = (field.split(":") for field in line.split())
    return [(bytes.fromhex(name), bytes.fromhex(value), never == "n") for name, value, never in split]


def of_theirs(headers):
    return [(bytes(name), bytes(value), not getattr(one, "indexable", True)) for one in headers for name, value in [one]]


def ours_to_theirs(draw, lines):
    """What we write is what they read."""
    decoder = hpack.Decoder(LIST_BYTES_MAX)
    for _ in range(BLOCKS):
        if draw.random() < 0.2:
            sizes = [draw.choice([0, 40, 300, 2000, 4096, 9000]) for _ in range(draw.randint(1, 3))]
            for size in sizes:
                lines.ask(f"S {size}")
            # They demand an update within the last size; the least comes first and is below it.
            decoder.max_allowed_table_size = sizes[-1]
        sent = fields(draw)
        if not sent:
            continue
        block = bytes.fromhex(lines.ask("E " + written(sent)))
        try:
            got = of_theirs(decoder.decode(block, raw=True))
        except hpack.HPACKError as error:
            fail("cannot read our block", block.hex(), sent, error)
        if got != sent:
            fail("reads another list in our block", block.hex(), sent, got)


def theirs_to_ours(draw, lines):
    """What they write is what we read."""
    encoder = hpack.Encoder()
    for _ in range(BLOCKS):
        if draw.random() < 0.2:
            for _ in range(draw.randint(1, 3)):
                # Told the same size twice, theirs forgets to say that it has changed.
                others = {0, 40, 300, 2000, 4096, TABLE_BYTES_MAX} - {encoder.header_table_size}
                encoder.header_table_size = draw.choice(sorted(others))
        sent = fields(draw)
        block = encoder.encode(sent, huffman=draw.random() < 0.7)
        answer = lines.ask(f"D {LIST_BYTES_MAX} {block.hex()}")
        if answer.startswith("!") or not is_list(read(answer), sent):
            fail("we do not read its block", block.hex(), sent, answer)


def is_list(got, sent):
    """Whether all came. Theirs sends a secret by its index where the table has it from before."""
    return len(got) == len(sent) and all(
        one[:2] == other[:2] and one[2] <= other[2] for one, other in zip(got, sent))


def broken(draw, lines):
    """Both read or refuse a block in which octets were changed; what both read is the same."""
    encoder, decoder = hpack.Encoder(), hpack.Decoder(LIST_BYTES_MAX)
    decoder.max_allowed_table_size = TABLE_BYTES_MAX
    decoder.header_table_size = 4096
    refused = 0
    for _ in range(BLOCKS):
        block = bytearray(encoder.encode(fields(draw), huffman=draw.random() < 0.7))
        for _ in range(draw.randrange(3) if block else 0):
            at = draw.randrange(len(block))
            block[at:at + draw.randrange(2)] = octets(draw, 3)
        answer = lines.ask(f"D {LIST_BYTES_MAX} {bytes(block).hex()}")
        try:
            theirs = of_theirs(decoder.decode(bytes(block), raw=True))
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            theirs = error
        if answer.startswith("!"):
            if not isinstance(theirs, Exception):
                fail("reads a block that we refuse", bytes(block).hex(), answer, theirs)
            return refused + 1
        if isinstance(theirs, Exception):
            fail("refuses a block that we read", bytes(block).hex(), answer, theirs)
        if read(answer) != theirs:
            fail("reads another list in a broken block", bytes(block).hex(), answer, theirs)
    return refused


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", required=True)
    parser.add_argument("--connections", type=int, default=150, help="of each kind [%(default)s]")
    parser.add_argument("--seed", type=int, default=7541)
    options = parser.parse_args()
    draw, lines = random.Random(options.seed), Lines(options.lines)
    refused = 0
    for _ in range(options.connections):
        for direction in (ours_to_theirs, theirs_to_ours, broken, broken, broken):
            lines.ask("N")
            refused += direction(draw, lines) or 0
    print(f"hpack (PyPI): {options.connections} connections of {BLOCKS} blocks each way agree, and on {refused} broken blocks")


if __name__ == "__main__":
    main()
