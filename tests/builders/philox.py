"""Philox written out, as a twin of NumPy's."""

WORD = 2**64 - 1


def philox(key, counter, words):
    """Philox 4x64-10 (Salmon et al., SC 2011), on Python's integers; words from counter + 1 on."""
    out = []
    while len(out) < words:
        counter = (counter + 1) % 2**256
        c = [counter >> 64 * i & WORD for i in range(4)]
        k = [key & WORD, key >> 64]
        for _ in range(10):
            low, high = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [high >> 64 ^ c[1] ^ k[0], high & WORD, low >> 64 ^ c[3] ^ k[1], low & WORD]
            k = [(k[0] + 0x9E3779B97F4A7C15) & WORD, (k[1] + 0xBB67AE8584CAA73B) & WORD]
        out += c
    return out[:words]
