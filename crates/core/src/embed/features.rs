//! The features of a text: words, whole identifiers and n-grams, as hashes with weights.

use std::ops::RangeInclusive;

/// Lengths of n-grams, in characters, end marks included.
const NGRAMS: RangeInclusive<usize> = 3..=5;
/// Longest part of a word that gives n-grams; encoded data would otherwise drown the words.
const MAX_NGRAM_CHARS: usize = 64;
/// Words of fewer characters say little.
const SHORT_WORD_CHARS: usize = 3;
/// Stands before and after a word in its n-grams.
const END_MARK: char = '\u{2}';

/// How much a feature counts. An average word has about 15 n-grams, which together have about the
/// length of the word's own feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    Word,
    ShortWord,
    Ngram,
}

impl Weight {
    pub(super) const fn value(self) -> f64 {
        match self {
            Self::Word => 1.0,
            Self::ShortWord => 0.5,
            Self::Ngram => 0.25,
        }
    }
}

/// Calls `take` for every feature of a text, repeated ones each time.
pub(super) fn for_each_feature(text: &str, mut take: impl FnMut(u64, Weight)) {
    let mut word = Word::default();
    for identifier in text.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
        let mut words = 0;
        let mut whole = Hash::new(Kind::Word);
        for part in words_of(identifier) {
            word.read(part);
            word.chars.iter().for_each(|c| whole.add(*c));
            word.features(&mut take);
            words += 1;
        }
        if words > 1 {
            take(whole.finish(), Weight::Word);
        }
    }
}

/// The words of an identifier: split at `_`, before an upper-case letter that follows a lower-case
/// letter or a digit, and before the last of several upper-case letters if a lower-case one follows
/// (`HTTPServer` is `HTTP`, `Server`).
fn words_of(identifier: &str) -> impl Iterator<Item = &str> {
    identifier.split('_').flat_map(|part| {
        let mut rest = part;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (word, after) = rest.split_at(first_word_bytes(rest));
            rest = after;
            Some(word)
        })
    })
}

fn first_word_bytes(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    let mut before: Option<char> = None;
    while let Some((at, c)) = chars.next() {
        if let Some(before) = before
            && c.is_uppercase()
            && (!before.is_uppercase() || chars.peek().is_some_and(|(_, next)| next.is_lowercase()))
        {
            return at;
        }
        before = Some(c);
    }
    text.len()
}

/// A word in lower case, with room that is used again for the next one.
#[derive(Default)]
struct Word {
    chars: Vec<char>,
    marked: Vec<char>,
}

impl Word {
    fn read(&mut self, word: &str) {
        self.chars.clear();
        self.chars.extend(word.chars().flat_map(char::to_lowercase));
    }

    fn features(&mut self, take: &mut impl FnMut(u64, Weight)) {
        let mut whole = Hash::new(Kind::Word);
        self.chars.iter().for_each(|c| whole.add(*c));
        if self.chars.len() < SHORT_WORD_CHARS {
            return take(whole.finish(), Weight::ShortWord);
        }
        take(whole.finish(), Weight::Word);

        self.marked.clear();
        self.marked.push(END_MARK);
        self.marked.extend(self.chars.iter().take(MAX_NGRAM_CHARS));
        self.marked.push(END_MARK);
        for start in 0..self.marked.len() {
            let mut hash = Hash::new(Kind::Ngram);
            for (i, c) in self.marked[start..].iter().take(*NGRAMS.end()).enumerate() {
                hash.add(*c);
                if NGRAMS.contains(&(i + 1)) {
                    take(hash.finish(), Weight::Ngram);
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Word = 1,
    Ngram = 2,
}

/// FNV-1a over the UTF-8 bytes behind a byte for the kind, ended by the final mix of MurmurHash3,
/// since the low bits of FNV alone are too regular for a place and a sign.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    fn new(kind: Kind) -> Self {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        hash.byte(kind as u8);
        hash
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn add(&mut self, c: char) {
        c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| self.byte(byte));
    }

    fn finish(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(identifier: &str) -> Vec<&str> {
        words_of(identifier).collect()
    }

    #[test]
    fn identifiers_are_split_into_words() {
        assert_eq!(words("parse_http_url"), ["parse", "http", "url"]);
        assert_eq!(words("parseHttpUrl"), ["parse", "Http", "Url"]);
        assert_eq!(words("HTTPServer"), ["HTTP", "Server"]);
        assert_eq!(words("utf8Text"), ["utf8", "Text"]);
        assert_eq!(words("MAX_LIMIT"), ["MAX", "LIMIT"]);
        assert_eq!(words("__init__"), ["init"]);
        assert_eq!(words("ÄrgerMaß"), ["Ärger", "Maß"]);
        assert_eq!(words("_"), Vec::<&str>::new());
    }

    #[test]
    fn a_word_gives_itself_and_its_ngrams() {
        let mut features = Vec::new();
        for_each_feature("tree", |_, weight| features.push(weight));
        // Of six characters with marks: four of three, three of four, two of five.
        assert_eq!(features.iter().filter(|w| **w == Weight::Ngram).count(), 9);
        assert_eq!(features.iter().filter(|w| **w == Weight::Word).count(), 1);
    }

    #[test]
    fn the_hash_is_the_documented_one() {
        // FNV-1a of the single byte "a" is af63dc4c8601ec8c; the kind byte goes through the same step.
        let mut fnv = Hash(0xcbf2_9ce4_8422_2325);
        fnv.byte(b'a');
        assert_eq!(fnv.0, 0xaf63_dc4c_8601_ec8c);
        // MurmurHash3's final mix of 1.
        assert_eq!(Hash(1).finish(), 0xb456_bcfc_34c2_cb2c);
    }

    #[test]
    fn a_very_long_word_gives_few_ngrams() {
        let mut features = 0;
        for_each_feature(&"x1".repeat(50_000), |_, _| features += 1);
        assert!(features < 4 * (MAX_NGRAM_CHARS + 2), "{features}");
    }
}
