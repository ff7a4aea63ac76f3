//! Files cut into chunks.

use text_splitter::{Characters, ChunkConfig, TextSplitter};

/// How many characters a chunk has at most if nobody says: about a page of code.
pub const DEFAULT_CHUNK_CHARS: usize = 1_200;
/// A file with lines longer than this was made by a program, and cut by words it takes minutes.
const LONG_LINE_BYTES: usize = 8 << 10;

/// How files become points: the size of chunks and the embedder. What another recipe made is
/// indexed anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    chunk_chars: usize,
    embedder: String,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Its place among the file's chunks, from 0.
    pub number: usize,
    /// The text, without white space around it.
    pub text: &'a str,
    /// The line that it starts in, from 1.
    pub start_line: usize,
    /// The line that it ends in.
    pub end_line: usize,
}

impl Recipe {
    /// Chunks of at most this many characters (at least 16), embedded by the embedder of this
    /// name.
    pub fn new(chunk_chars: usize, embedder: &str) -> Self {
        Self { chunk_chars: chunk_chars.max(16), embedder: embedder.to_owned() }
    }

    /// The hash of a file's content under this recipe, in hexadecimal.
    pub fn file_hash(&self, content: &[u8]) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("mainstay index 1: file content under a recipe");
        for part in [self.chunk_chars.to_string().as_bytes(), self.embedder.as_bytes(), content] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// Cuts a text where it parts best: between paragraphs, else lines, else sentences, else
    /// words. A text of nothing but white space has no chunks.
    pub fn chunks<'a>(&self, text: &'a str) -> Vec<Chunk<'a>> {
        let mut chunks = Vec::new();
        let mut lines = LineCounter { text, at: 0, line: 1 };
        for (at, part) in self.parts(text) {
            let trimmed = part.trim();
            if trimmed.is_empty() {
                continue;
            }
            let at = at + (part.len() - part.trim_start().len());
            let start_line = lines.line_of(at);
            let end_line = lines.line_of(at + trimmed.len());
            chunks.push(Chunk { number: chunks.len(), text: trimmed, start_line, end_line });
        }
        chunks
    }

    fn parts<'a>(&self, text: &'a str) -> Vec<(usize, &'a str)> {
        if text.lines().any(|line| line.len() > LONG_LINE_BYTES) {
            return self.plain_parts(text);
        }
        let splitter: TextSplitter<Characters> = TextSplitter::new(ChunkConfig::new(self.chunk_chars));
        splitter.chunk_indices(text).collect()
    }

    /// Cuts by characters alone.
    fn plain_parts<'a>(&self, text: &'a str) -> Vec<(usize, &'a str)> {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let end = rest.char_indices().nth(self.chunk_chars).map_or(rest.len(), |(end, _)| end);
            parts.push((at, &rest[..end]));
            at += end;
        }
        parts
    }
}

/// Counts lines forward only, so that a whole file is counted once.
struct LineCounter<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl LineCounter<'_> {
    fn line_of(&mut self, at: usize) -> usize {
        if let Some(passed) = self.text.as_bytes().get(self.at..at) {
            self.line += passed.iter().filter(|byte| **byte == b'\n').count();
            self.at = at;
        }
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(chars: usize) -> Recipe {
        Recipe::new(chars, "test")
    }

    #[test]
    fn chunks_cover_the_text_in_order_and_keep_to_the_size() {
        let text = (1..200)
            .map(|n| format!("line {n} of the text.\n{}", if n % 7 == 0 { "\n" } else { "" }))
            .collect::<String>();
        let chunks = recipe(100).chunks(&text);
        assert!(chunks.len() > 30);
        for (number, chunk) in chunks.iter().enumerate() {
            assert_eq!(chunk.number, number);
            assert!(chunk.text.chars().count() <= 100);
        }
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let all: Vec<_> = chunks.iter().map(|chunk| chunk.text).collect();
        assert_eq!(squeeze(&all.join(" ")), squeeze(&text));
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let text = "\n\nfn one() {\n}\n\n\nfn two() {\n    three();\n}\n";
        let chunks = recipe(24).chunks(text);
        let lines: Vec<&str> = text.lines().collect();
        assert!(chunks.len() >= 2);
        for chunk in &chunks {
            assert!(
                lines[chunk.start_line - 1].contains(chunk.text.lines().next().unwrap().trim()),
                "{chunk:?}"
            );
            assert!(
                lines[chunk.end_line - 1].contains(chunk.text.lines().last().unwrap().trim()),
                "{chunk:?}"
            );
        }
        assert_eq!((chunks[0].start_line, chunks.last().unwrap().end_line), (3, 9));
    }

    #[test]
    fn white_space_has_no_chunks() {
        assert!(recipe(100).chunks("").is_empty());
        assert!(recipe(100).chunks(" \n\t\n").is_empty());
    }

    #[test]
    fn one_endless_line_is_cut_without_delay() {
        let text = "é word ".repeat(100_000);
        let chunks = recipe(1_200).chunks(&text);
        assert_eq!(chunks.len(), text.chars().count().div_ceil(1_200));
        assert!(chunks.iter().all(|chunk| (chunk.start_line, chunk.end_line) == (1, 1)));
    }

    #[test]
    fn another_recipe_is_another_hash() {
        let hash = recipe(100).file_hash(b"text");
        assert_eq!(hash, recipe(100).file_hash(b"text"));
        assert_eq!(hash.len(), 32);
        for other in [
            recipe(101).file_hash(b"text"),
            Recipe::new(100, "other").file_hash(b"text"),
            recipe(100).file_hash(b"texts"),
        ] {
            assert_ne!(hash, other);
        }
    }
}
