#!/usr/bin/env python3
"""Writes fixtures/: what the Hugging Face `tokenizers` library answers, as 64-bit hashes of ids.

    python3 make_fixtures.py MODEL_DIR [OUTPUT_DIR]     needs: pip install tokenizers

model.txt        which tokenizer.json the model fixtures belong to
code_points.txt  every code point in four placements, one hash per block of 256 code points
texts.jsonl      12,000 texts, each with one hash over its ids without a limit and with a limit of 16
options.txt      all 16 combinations of the normalizer's options, over the same texts and every code point, with a
                 vocabulary of single characters that the test builds by itself: these need no model

Equal lines that follow each other are written once, as "HASH xCOUNT". The hash takes one 32-bit id a step:
hash = (hash ^ id) * 0x100000001b3 mod 2^64, from 0xcbf29ce484222325; a text's count of ids goes first.
"""

import itertools
import json
import os
import random
import sys

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HASH_START, HASH_STEP, HASH_MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1
PLACEMENTS = ["{}", "a{}b", "{}b", "a{}"]
TOKENS_MAX = 16
TEXTS = 12_000
OPTION_TEXTS_PER_HASH = 500
OPTION_POINTS_PER_HASH = 4096

SENTENCES = """
The quick brown fox jumps over the lazy dog, and nobody writes it down.
Der Überblick über die Größe der Maßnahmen wäre für alle möglich; Straße, Äpfel, öffnen.
L'élève a reçu où il fallait ses œuvres complètes : « déjà vu », naïveté, garçon, ça.
El niño comió piñas en la montaña; ¿cuándo volverá? ¡Mañana!
A ação não é fácil: coração, pão, avó e avô.
Perché l'università è così lontana dalla città?
Zażółć gęślą jaźń. Łódź leży nad Łódką.
Příliš žluťoučký kůň úpěl ďábelské ódy.
Árvíztűrő tükörfúrógép, öt hűtőházból kértünk színhúst.
İstanbul'da ışıklar söndü; ILIK ıspanak, ŞÖLEN, ğ.
Þetta er íslenska: æði, öl, ýsa, Ðað.
Tiếng Việt có nhiều dấu: ngữ, được, những, Đà Nẵng, ướt, ẫ.
Съешь же ещё этих мягких французских булок, да выпей чаю. ЁЛКА Й й.
Україна має свої їжаки та ґудзики.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ΟΔΥΣΣΕΥΣ ὀδυσσεύς ᾍ ᾳ ΰ.
שלום עולם, בְּרֵאשִׁית בָּרָא אֱלֹהִים
السلام عليكم ورحمة الله، اللُّغَةُ العَرَبِيَّة ٣٤٥؟
سلام دنیا، می‌خواهم کتاب بخوانم ۱۲۳.
हिन्दी में लिखा हुआ पाठ, क़ख़ग़ ज़्यादा। १२३
বাংলা ভাষায় লেখা বাক্য, ড় ঢ় য়।
தமிழ் எழுத்துகள் கொண்ட வாக்கியம்.
ภาษาไทยไม่มีช่องว่างระหว่างคำ ๑๒๓
မြန်မာစာ ကို ရေးသည်။
ཨོཾ་མ་ཎི་པདྨེ་ཧཱུྃ། བོད་སྐད་
ქართული ენა, ᲥᲐᲠᲗᲣᲚᲘ Ⴀⴀ
Հայերեն լեզու և տառեր։
አማርኛ ቋንቋ፣ ሰላም።
中文句子没有空格，金融数据：苹果公司股价上涨1.5％。
日本語の文章です。カタカナ、ひらがな、ガギグゲゴ、ﾊﾝｶｸ、㍿と①②③。
한국어 문장입니다. 가격이 올랐습니다, 각갂갃.
각 ᄀᆞᆫ ꥠힰ
𠀀𪜀𫝀𫠠𬺰丽 rare ideographs 豈更 and 㐀䶵
𝐁𝐨𝐥𝐝 𝕕𝕠𝕦𝕓𝕝𝕖 ＦＵＬＬ　ＷＩＤＴＨ ﬁ ﬂ ﬃ ① Ⅷ ⅷ ™ ℡ Å Ω K
😀 👍🏽 👩‍👩‍👧‍👦 🇩🇪 ❤️ 🏴‍☠️ family
∀x∈ℝ: x²≥0 ⇒ ∑ᵢ xᵢ ≠ ≮ ≯ ∄ ⟨a|b⟩ $5 + €7 < £9 = ¥10 ^ ` | ~
café vs café, ﬀ, ǅ ǆ Ǆ, ß ẞ SS, ŉ ǰ ΐ, ſ
https://example.com/path?q=1&r=%20#frag user.name+tag@example.org C:\\dir\\file.txt
for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; } // O(n)
don't can't won't it's we're I'd o'clock rock'n'roll ‘single’ “double” – dash — em…
1,234,567.89 -12.5% +0.96% 2025-11-05T12:34:56Z 3.14159e-10 0xDEADBEEF
""".strip().split("\n")

LITERALS = ["[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "[sep]", "[Sep]", "[SEP", "SEP]", "[[SEP]]", "[CLS][SEP]",
            "[unused1]", "##ing", "##", "#", "[", "]", "<s>", "</s>", "a[MASK]b", "[MA\u0301SK]", "[MASK]\u0301",
            "[ MASK ]"]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u2029",
          "\u202f", "\u205f", "\u3000", "\u180e", "\u200b", "\ufeff", "\x00", "\ufffd", "\xad", "\u200d", "\u2060",
          "\x7f", "\ue000", "\U000e0001", "\U0010ffff"]
TICKERS = [("Apple Inc.", "AAPL", "Technology"), ("Microsoft Corporation", "MSFT", "Technology"),
           ("Alphabet Inc.", "GOOGL", "Technology"),
           ("Amazon.com Inc.", "AMZN", "Consumer Discretionary"),
           ("NVIDIA Corporation", "NVDA", "Technology"), ("JPMorgan Chase & Co.", "JPM", "Financials")]
RANGES = [(0x20, 0x7F), (0x00, 0x300), (0x300, 0x370), (0x370, 0x530), (0x530, 0x900), (0x900, 0x1100),
          (0x1100, 0x1200), (0x1AB0, 0x1B00), (0x1C80, 0x2000), (0x2000, 0x2C00), (0x2C00, 0x3400),
          (0x3400, 0x4E00), (0x4E00, 0xA000), (0xA000, 0xAC00), (0xAC00, 0xD7A4), (0xF900, 0xFFFF),
          (0x10000, 0x12000), (0x1D000, 0x1D250), (0x1E000, 0x1F000), (0x1F000, 0x1FB00), (0x20000, 0x20100),
          (0x2B700, 0x2B930), (0x2F800, 0x2FA20), (0xE0000, 0xE0200), (0x10FFF0, 0x110000), (0, 0x110000)]


def is_scalar(code_point):
    return not 0xD800 <= code_point < 0xE000


class TextMaker:
    def __init__(self, words):
        self.random = random.Random(20240229)
        self.words = words

    def pick(self, items):
        return items[self.random.randrange(len(items))]

    def code_point(self, span=None):
        first, past = span or self.pick(RANGES)
        while True:
            code_point = self.random.randrange(first, past)
            if is_scalar(code_point):
                return chr(code_point)

    def finance(self):
        name, ticker, sector = self.pick(TICKERS)
        price = lambda: f"${self.random.uniform(50, 900):.2f}"
        day = f"2025-{self.random.randint(1, 12):02}-{self.random.randint(1, 28):02}"
        return self.pick([
            f"{name} ({ticker}) Financial Data - {day}\n\nMarket Performance:\n• Opening Price: {price()}\n• Daily",
            f"{ticker} stock market data for {day}: Opening at {price()}, the stock reached a high of {price()}.",
            f"Trading volume was {self.random.randint(10**6, 10**9):,} shares. "
            f"Daily change: {self.random.uniform(-3, 3):+.2f}%",
            f"{ticker} {self.pick(['stock price', 'financial data', 'trading volume', 'weekly analysis'])}",
            f"0\n• Closing Price: {price()[:-3]}", f"{sector} sector: market cap {price()}B, P/E ratio 15.5, YoY +12%"])

    def word(self):
        word = self.pick(self.words)
        accented = word[:3] + "\u0301" + word[3:]
        return self.pick([word, word.capitalize(), word.upper(), word + self.pick(self.words), accented])

    def piece(self):
        kind = self.random.randrange(12)
        if kind < 3:
            return self.word()
        if kind == 3:
            return self.pick(LITERALS)
        if kind == 4:
            return self.pick(SPACES)
        if kind == 5:
            return self.pick(["x", "é", "e\u0301", "字", "\u0301", "İ"]) * self.pick([2, 3, 49, 50, 51, 99, 100, 101])
        if kind == 6:
            return "".join(self.code_point((0x300, 0x370)) for _ in range(self.random.randint(1, 5)))
        if kind == 7:
            return "".join(self.code_point() for _ in range(self.random.randint(1, 4)))
        if kind == 8:
            span = self.pick(RANGES)
            return "".join(self.code_point(span) for _ in range(self.random.randint(1, 6)))
        if kind == 9:
            return self.code_point((0x21, 0x30)) * self.random.randint(1, 3)
        sentence = self.pick(SENTENCES)
        start = self.random.randrange(len(sentence))
        return sentence[start:start + self.random.randint(1, 24)]

    def text(self, number):
        if number < len(SENTENCES):
            return SENTENCES[number]
        if number % 6 == 0:
            return self.finance()
        if number % 6 == 1:
            return " ".join(self.word() for _ in range(self.random.randint(1, 10)))
        if number % 6 == 2:  # slices of several languages
            cut = lambda sentence, at: sentence[at:at + self.random.randint(4, 30)]
            return self.pick(["", " ", ". "]).join(
                cut(sentence, self.random.randrange(len(sentence))) for sentence in self.random.choices(SENTENCES, k=2))
        if number % 500 == 3:  # longer than the scanner's window, at every offset to its blocks
            return "q" * self.random.randrange(70) + " wörld, hello" * 50 + "." * self.random.randrange(70) + "z" * 480
        return "".join(self.piece() + self.pick(["", " ", " "]) for _ in range(self.random.randint(1, 4)))


def hash_ids(ids, value=HASH_START):
    value = (value ^ len(ids)) * HASH_STEP & HASH_MASK
    for each in ids:
        value = (value ^ each) * HASH_STEP & HASH_MASK
    return value


def run_lengths(hashes):
    for value, equal in itertools.groupby(hashes):
        count = len(list(equal))
        yield f"{value:016x}" + (f" x{count}" if count > 1 else "")


def ids_of(tokenizer, texts):
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def truncated(ids):
    return ids if len(ids) <= TOKENS_MAX else ids[:TOKENS_MAX - 1] + ids[-1:]


def code_point_hashes(tokenizer, placement, block_size):
    for first in range(0, 0x110000, block_size):
        points = [c for c in range(first, first + block_size) if is_scalar(c)]
        value = HASH_START
        for ids in ids_of(tokenizer, [placement.replace("{}", chr(c)) for c in points]):
            value = hash_ids(ids, value)
        yield value


def character_tokenizer(clean_text, chinese, strip_accents, lowercase):
    """Every code point below U+3000 and a few above is a token, alone and as a continuation."""
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}
    for first, past in [(0, 0x3000), (0xA000, 0xABC0), (0x1D100, 0x1D200), (0xFFFD, 0xFFFE)]:
        for code_point in range(first, past):
            vocabulary[chr(code_point)] = len(vocabulary)
            vocabulary["##" + chr(code_point)] = len(vocabulary)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=40))
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=clean_text, handle_chinese_chars=chinese,
                                                      strip_accents=strip_accents, lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


def option_lines(texts):
    for options in itertools.product((0, 1), repeat=4):
        tokenizer = character_tokenizer(*map(bool, options))
        yield "options " + " ".join(map(str, options))
        hashes = []
        for first in range(0, len(texts), OPTION_TEXTS_PER_HASH):
            value = HASH_START
            for ids in ids_of(tokenizer, texts[first:first + OPTION_TEXTS_PER_HASH]):
                value = hash_ids(ids, value)
            hashes.append(value)
        hashes += code_point_hashes(tokenizer, "a{}b{}", OPTION_POINTS_PER_HASH)
        yield from run_lengths(hashes)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    output = sys.argv[2] if len(sys.argv) == 3 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
    with open(os.path.join(sys.argv[1], "tokenizer.json"), "rb") as file:
        model_bytes = file.read()
    tokenizer = Tokenizer.from_str(model_bytes.decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha())
    maker = TextMaker(words)
    texts = [maker.text(number) for number in range(TEXTS)]
    os.makedirs(output, exist_ok=True)

    def write(name, lines):
        with open(os.path.join(output, name), "w", encoding="utf-8", newline="\n") as file:
            file.writelines(line + "\n" for line in lines)

    write("model.txt", [f"{len(model_bytes)} {hash_ids(model_bytes):016x}"])
    write("texts.jsonl", (json.dumps([f"{hash_ids(truncated(ids), hash_ids(ids)):016x}", text], ensure_ascii=False)
                          for text, ids in zip(texts, ids_of(tokenizer, texts))))
    write("code_points.txt", itertools.chain.from_iterable(
        itertools.chain(["placement " + placement], run_lengths(code_point_hashes(tokenizer, placement, 256)))
        for placement in PLACEMENTS))
    write("options.txt", option_lines(texts))


if __name__ == "__main__":
    main()
