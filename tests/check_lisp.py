#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# What the programs of examples/lisp should print, found out in another way.
#
#   check_lisp.py json FILE    what json.scm prints of the file
#   check_lisp.py derive       looks at what derive.scm has printed, on standard input: at some points, is each derivative
#                              what the expression's differences come to?
import json
import math
import re
import sys


def print_json(path):
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    counts = dict.fromkeys(["object", "array", "string", "number", "boolean", "null"], 0)

    def depth(x):
        if isinstance(x, dict):
            kind, parts = "object", x.values()
        elif isinstance(x, list):
            kind, parts = "array", x
        else:
            parts = []
            kind = "string" if isinstance(x, str) else "boolean" if isinstance(x, bool) else "null" if x is None else "number"
        counts[kind] += 1
        return 1 + max([depth(part) for part in parts], default=0)

    lines = ["depth: %d" % depth(document), json.dumps(document, indent=2, ensure_ascii=False), ""]
    lines = ["%s: %d" % item for item in counts.items()] + lines
    sys.stdout.buffer.write("\n".join(lines).encode("utf-8"))


def read(text):
    tokens = re.findall(r"[()]|[^\s()]+", text)

    def one(at):
        if tokens[at] != "(":
            return (int(tokens[at]) if re.fullmatch(r"-?\d+", tokens[at]) else tokens[at]), at + 1
        parts, at = [], at + 1
        while tokens[at] != ")":
            part, at = one(at)
            parts.append(part)
        return parts, at + 1

    x, end = one(0)
    assert end == len(tokens), text
    return x


def value(e, x):
    if isinstance(e, int):
        return float(e)
    if isinstance(e, str):
        return {"x": x, "y": 0.7}[e]
    a = [value(part, x) for part in e[1:]]
    return {
        "+": lambda: a[0] + a[1],
        "-": lambda: a[0] - a[1],
        "*": lambda: a[0] * a[1],
        "/": lambda: a[0] / a[1],
        "^": lambda: a[0] ** a[1],
        "sin": lambda: math.sin(a[0]),
        "cos": lambda: math.cos(a[0]),
        "exp": lambda: math.exp(a[0]),
        "log": lambda: math.log(a[0]),
    }[e[0]]()


def check_derivatives():
    checked = 0
    for line in sys.stdin:
        if " -> " not in line:
            continue
        expression, derivative = (read(side) for side in line.split(" -> "))
        for x in (0.4, 0.9, 1.7):
            difference = (value(expression, x + 1e-5) - value(expression, x - 1e-5)) / 2e-5
            found = value(derivative, x)
            assert abs(found - difference) <= 1e-5 * max(1, abs(found)), (line, x, found, difference)
            checked += 1
    assert checked >= 30, checked
    print("%d derivatives at points" % checked)


if sys.argv[1] == "json":
    print_json(sys.argv[2])
else:
    check_derivatives()
