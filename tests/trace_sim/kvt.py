"""kvt: traces of requests as paths in a prefix tree: read, write, and make from a seed. Standard library only.

A .kvt file is text. A line that starts with '#' is a header, "key value"; every other line is one request, in arrival order:

    t_ms  session  model  in_tokens  out_tokens  hit_node  n_new        (tab separated)

Blocks are nodes of a tree (a block is its content and everything before it); node 0 is the root, the others are numbered from 1 in
order of first appearance. A request's blocks are the path from the root to hit_node, then n_new fresh nodes, chained. hit_node is the
deepest node of the request that any earlier request had, so an infinite cache hits exactly depth(hit_node) blocks.
"""
import lzma
import random

COLUMNS = "t_ms session model in_tokens out_tokens hit_node n_new"


class Trace:
    def __init__(self, header, rows):
        self.header = header
        self.rows = rows

    def paths(self):
        """The blocks of every request, first to last."""
        parent = [0]
        for row in self.rows:
            hit, fresh = row[5], row[6]
            path = []
            node = hit
            while node:
                path.append(node)
                node = parent[node]
            path.reverse()
            tip = hit
            for _ in range(fresh):
                parent.append(tip)
                tip = len(parent) - 1
                path.append(tip)
            yield path

    def head(self, requests):
        return Trace(self.header, self.rows[:requests])

    def references(self):
        return sum(len(path) for path in self.paths())

    def unique(self):
        return sum(row[6] for row in self.rows)


def read(path):
    opener = lzma.open if str(path).endswith(".xz") else open
    header, rows, nodes = {}, [], 1
    with opener(path, "rt", encoding="ascii") as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith("#"):
                key, _, value = line[1:].rstrip("\n").partition(" ")
                header[key] = value
                continue
            row = tuple(map(int, line.split("\t")))
            if len(row) != 7 or row[5] >= nodes:
                raise ValueError(f"{path}:{number}: not a request: {line!r}")
            rows.append(row)
            nodes += row[6]
    return Trace(header, rows)


def write(trace, path):
    opener = lzma.open if str(path).endswith(".xz") else open
    with opener(path, "wt", encoding="ascii") as out:
        for key, value in trace.header.items():
            out.write(f"#{key} {value}\n")
        out.write(f"#columns {COLUMNS}\n")
        for row in trace.rows:
            out.write("\t".join(map(str, row)) + "\n")


def write_mooncake(trace, path):
    """The same requests as JSON lines of the Mooncake release: {"timestamp", "input_length", "output_length", "hash_ids"}."""
    opener = lzma.open if str(path).endswith(".xz") else open
    with opener(path, "wt", encoding="ascii") as out:
        for row, nodes in zip(trace.rows, trace.paths()):
            ids = ", ".join(str(node) for node in nodes)
            out.write(f'{{"timestamp": {row[0]}, "input_length": {row[3]}, "output_length": {row[4]}, "hash_ids": [{ids}]}}\n')


def generate(seed, requests, *, prompts=4, prompt_blocks=8, turn_blocks=4, live_sessions=12, turns=8, fork_percent=10,
             repeat_percent=5, block_tokens=64):
    """Chat-like requests: sessions start with one of a few shared prompts, grow turn by turn, some go back and fork, some ask the
    same again. The same seed gives the same trace."""
    rng = random.Random(seed)
    parent, depth, rows = [0], [0], []
    prompt_tips = [0] * prompts
    sessions, names = [], 0
    now = 0

    def grow(tip, count):
        for _ in range(count):
            parent.append(tip)
            depth.append(depth[tip] + 1)
            tip = len(parent) - 1
        return tip

    while len(rows) < requests:
        now += rng.randint(0, 200)
        if len(sessions) < live_sessions and (not sessions or rng.random() < 0.3):
            names += 1
            which = rng.randrange(prompts)
            sessions.append([names, which, 0, rng.randint(1, 2 * turns)])
        session = rng.choice(sessions)
        name, which, tip, left = session
        if tip == 0 and prompt_tips[which] == 0:
            hit, fresh = 0, rng.randint(1, 2 * prompt_blocks)
            prompt_tips[which] = tip = grow(0, fresh)
        else:
            hit = tip or prompt_tips[which]
            dice = rng.randrange(100)
            if dice < fork_percent:
                for _ in range(rng.randint(1, turn_blocks)):
                    hit = parent[hit] or hit
            fresh = 0 if dice >= 100 - repeat_percent else rng.randint(1, 2 * turn_blocks)
            tip = grow(hit, fresh)
        session[2], session[3] = tip, left - 1
        if session[3] <= 0:
            sessions.remove(session)
        rows.append((now, name, 1, depth[tip] * block_tokens, rng.randint(1, 500), hit, fresh))
    header = {"name": f"generated_{seed}", "block_tokens": str(block_tokens), "last_block": "full_blocks_only",
              "source": f"generated from seed {seed}", "licence": "Apache-2.0"}
    return Trace(header, rows)
