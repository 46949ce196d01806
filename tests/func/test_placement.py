"""Placement, written from docs/protocol/placement.md alone, against the golden vectors that the C test reads too.

`python3 test_placement.py` prints the vectors anew."""
import os
import re

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
DATA = os.path.join(ROOT, 'tests', 'data', 'placement.tsv')
PAGE = os.path.join(ROOT, 'docs', 'protocol', 'placement.md')
M = (1 << 64) - 1
K = [None] + [(1 << 63) // n for n in range(1, 6)]
C = 0x5c551d94ae0bf85e
T = [int(x, 16) for x in re.findall(r'0x[0-9a-f]{12}(?=,)', open(PAGE).read())]
MAPS = {
    'one': [1 << 40],
    'equal5': [1 << 40] * 5,
    'mixed7': [1 << 40, 2 << 40, 3 << 40, 1 << 30, 4 << 40, 8 << 30, (1 << 40) + 4096],
    'hundred': [(1 << 38) + (k % 7 << 36) for k in range(100)],
}


def mul(a, b):
    return a * b >> 63


def mix64(z):
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9 & M
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb & M
    return z ^ (z >> 31)


def draw(uuid, route):
    low, high = int.from_bytes(uuid[:8], 'little'), int.from_bytes(uuid[8:], 'little')
    h = mix64(route ^ mix64((low + 0x9e3779b97f4a7c15) & M) ^ ((high << 32 | high >> 32) & M))
    return mix64((h + route) & M) >> 11 | 1


def neg_log2(u):
    e = u.bit_length() - 1
    x = u << (63 - e)
    i = (x >> 57) & 63
    t = mul(x & ((1 << 57) - 1), (1 << 69) // (64 + i))
    p = K[5]
    for n in (4, 3, 2, 1):
        p = K[n] - mul(t, p)
    return max((53 << 48) - (e << 48) - T[i] - (mul(t, p) * C >> 77), 1)


def order(weights, route):
    shards = []
    for k, weight in enumerate(weights):
        uuid = bytes((31 * k + 17 * j) % 256 for j in range(16))
        shards.append((weight, neg_log2(draw(uuid, route)), uuid, k))
    rest, out = shards[:], []
    while rest:
        best = rest[0]
        for s in rest[1:]:
            a, b = s[0] * best[1], best[0] * s[1]
            if a > b or (a == b and s[2] > best[2]):
                best = s
        rest.remove(best)
        out.append(best[3])
    return out


def vectors():
    routes = [0, 1, M, 0x0123456789abcdef] + [mix64(n) for n in range(1, 13)]
    for name, weights in MAPS.items():
        for route in routes:
            yield (name, ','.join('%d' % w for w in weights), '%016x' % route,
                   ','.join('%d' % k for k in order(weights, route)[:16]))


def test_table():
    assert len(T) == 64
    import math
    for i, value in enumerate(T):
        assert abs(value / 2**48 - math.log2(1 + i / 64)) < 2**-46


def test_golden_vectors():
    rows = [tuple(line.rstrip('\n').split('\t')) for line in open(DATA) if not line.startswith('#')]
    assert len(rows) == 64
    assert rows == list(vectors())


if __name__ == '__main__':
    print('# map, weights, route, order of the shards (the first 16); see docs/protocol/placement.md')
    for row in vectors():
        print('\t'.join(row))
