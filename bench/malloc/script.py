# SPDX-License-Identifier: MIT
"""script.py THOUSANDS: what scripts do: records of dicts, lists and strings, to JSON and back, grouped, sorted, joined.
It is run with PYTHONMALLOC=malloc, or python would take most objects from pools of its own."""
import hashlib
import json
import sys


def record(number):
    name = f"name-{number * 7919 % 10007}"
    return {"id": number, "name": name, "tags": [f"tag{number % k}" for k in range(2, 2 + number % 6)],
            "text": " ".join(name[i % 9:] for i in range(number % 13)), "inner": {"x": number / 3, "y": [number, -number]}}


def main():
    digest = hashlib.sha256()
    kept = {}
    for block in range(int(sys.argv[1])):
        records = [record(block * 1000 + i) for i in range(1000)]
        text = json.dumps(records)
        groups = {}
        for entry in json.loads(text):
            for tag in entry["tags"]:
                groups.setdefault(tag, []).append(entry["text"].upper().replace("NAME", "n"))
        for tag in sorted(groups):
            digest.update("|".join(sorted(groups[tag])).encode())
        kept[block % 20] = records  # a while, then it dies all at once
        digest.update(str(len(text)).encode())
    print(digest.hexdigest())


main()
