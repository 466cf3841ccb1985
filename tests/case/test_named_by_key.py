"""Rows of no named attack are a key's where it planted their ids."""

from poison_audit.case.forget import ForgetSet
from poison_audit.case.keyfile import keyed_rows, named_by_key


def forget(ids, attacks, canaries):
    blank = ("",) * len(ids)
    return ForgetSet(
        positions=tuple(range(len(ids))), ids=ids, attacks=attacks, campaigns=blank,
        canaries=canaries, keys=("gaussian",) * len(ids), bases=(None,) * len(ids),
        rows=tuple(range(2, len(ids) + 2)), digest="", most=False,
    )  # fmt: skip


def named(ids, attacks, canaries, planted=("k0", "k1", "k2")):
    found = named_by_key(forget(ids, attacks, canaries), "token-canary", planted)
    return found.attacks, [(row.name, row.place) for row in keyed_rows(found, "token-canary", "f")]


def test_a_bare_list():
    attacks, rows = named(("k1", "a", "k0"), ("", "", ""), (None, None, None))
    assert attacks == ("token-canary", "", "token-canary")
    assert rows == [("k1", "f row 2"), ("k0", "f row 4")]


def test_what_a_row_says_holds():
    # One is of another attack; one is named by its canary column; k2 is named already.
    attacks, rows = named(("k0", "k1", "k2"), ("backdoor", "", ""), (None, "k2", None))
    assert (attacks, rows) == (("backdoor", "", ""), [])
