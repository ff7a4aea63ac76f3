//! Names of collections and vectors.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Longest name of a collection or vector, in bytes; a name becomes a table or directory name.
pub const MAX_NAME_BYTES: usize = 128;

fn check(what: &str, text: &str) -> Result<()> {
    if text.len() > MAX_NAME_BYTES {
        return Err(Error::invalid(format!(
            "the {what} name is {} bytes long; at most {MAX_NAME_BYTES} are allowed",
            text.len()
        )));
    }
    if let Some(c) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))) {
        return Err(Error::invalid(format!(
            "the {what} name {text:?} contains {c:?}; use ASCII letters, digits, `_`, `-` and `.`"
        )));
    }
    Ok(())
}

/// The name of a collection: 1 to 128 bytes of ASCII letters, digits, `_`, `-` and `.`, starting
/// with a letter, digit or `_`, so that every store can use it as a table or directory name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionName(Arc<str>);

impl CollectionName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// `Invalid` with the rule that the name breaks.
    pub fn new(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid("the collection name is empty"));
        }
        check("collection", text)?;
        if text.starts_with(['.', '-']) {
            return Err(Error::invalid(format!(
                "the collection name {text:?} must start with a letter, a digit or `_`"
            )));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The name of a vector inside a point; the default vector has the empty name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VectorName(Arc<str>);

impl VectorName {
    /// Checks and takes a name (the same letters as a collection's; empty is the default vector).
    ///
    /// # Errors
    /// `Invalid` with the rule that the name breaks.
    pub fn new(text: &str) -> Result<Self> {
        check("vector", text)?;
        Ok(Self(text.into()))
    }

    /// The name as text; empty for the default vector.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the default vector.
    pub fn is_default(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for VectorName {
    fn default() -> Self {
        Self("".into())
    }
}

impl fmt::Display for VectorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VectorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-flag", "a b", "é", "a\0", "a:b"] {
            assert!(CollectionName::new(bad).is_err(), "{bad:?}");
        }
        assert!(CollectionName::new(&"x".repeat(MAX_NAME_BYTES + 1)).is_err());
        for good in ["a", "A-1_b.c", "_x", &"x".repeat(MAX_NAME_BYTES)] {
            assert_eq!(CollectionName::new(good).unwrap().as_str(), good);
        }
    }
}
