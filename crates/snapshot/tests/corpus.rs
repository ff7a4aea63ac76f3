//! The corpus of the fuzz targets, replayed: whatever once failed stays mended.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

type Target = fn(&[u8]);

#[test]
fn no_file_of_the_corpus_makes_a_reader_fail() {
    let all: [(&str, Target); 5] = [
        ("older", targets::older),
        ("points", targets::points),
        ("manifest", targets::manifest),
        ("bucket", targets::bucket),
        ("segment", targets::segment),
    ];
    for (name, target) in all {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            target(&std::fs::read(path).unwrap());
            files += 1;
        }
        assert!(files >= 2, "{name}: {files} files");
    }
}
