//! The tests that the failure matrix names must be there.

use anyhow::{Context, Result};

use crate::cargo;

/// The matrix.
const MATRIX: &str = "docs/failures.md";

/// What is wrong with the matrix: rows that name no test, and tests that are not there.
pub fn problems() -> Result<Vec<String>> {
    let read = |path: &str| std::fs::read_to_string(cargo::root().join(path));
    let matrix = read(MATRIX).with_context(|| format!("cannot read {MATRIX}"))?;
    Ok(check(&matrix, |path| read(path).ok()))
}

fn check(matrix: &str, source: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut lines = matrix.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let is_header = lines.peek().is_some_and(|(_, next)| next.starts_with("|--"));
        if !line.starts_with('|') || line.starts_with("|--") || is_header {
            continue;
        }
        let place = format!("{MATRIX}:{}", at + 1);
        let tests: Vec<_> = line.split('`').filter_map(|word| word.split_once(".rs::")).collect();
        if tests.is_empty() {
            problems.push(format!("{place}: names no test"));
        }
        for (file, function) in tests {
            let file = format!("{file}.rs");
            match source(&file) {
                None => problems.push(format!("{place}: there is no file {file}")),
                Some(text) if !has_function(&text, function) => {
                    problems.push(format!("{place}: {file} has no function {function}"));
                }
                Some(_) => {}
            }
        }
    }
    problems
}

/// Whether a source declares this function.
fn has_function(source: &str, name: &str) -> bool {
    let declared =
        |line: &str| line.split_once("fn ").map(|(_, rest)| rest.split(['(', '<']).next() == Some(name));
    source.lines().any(|line| declared(line) == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "| fault | proof |\n|---|---|\n";

    fn found(row: &str) -> Vec<String> {
        let source =
            |path: &str| (path == "a.rs").then(|| "async fn it_holds() {}\nfn it<F>() {}".to_owned());
        check(&format!("{HEAD}{row}\n"), source)
    }

    #[test]
    fn a_row_whose_tests_are_there_is_fine() {
        assert_eq!(found("| x | `a.rs::it_holds`, `a.rs::it` |"), Vec::<String>::new());
    }

    #[test]
    fn a_row_without_a_test_and_a_test_that_is_gone_are_named() {
        assert_eq!(found("| x | none |"), ["docs/failures.md:3: names no test"]);
        assert_eq!(found("| x | `a.rs::it_hold` |"), ["docs/failures.md:3: a.rs has no function it_hold"]);
        assert_eq!(found("| x | `b.rs::it` |"), ["docs/failures.md:3: there is no file b.rs"]);
    }
}
