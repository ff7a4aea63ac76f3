//! Payload paths: how a filter or an index names a value inside a payload.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::point::Payload;

/// Longest path, in bytes.
pub const MAX_PATH_BYTES: usize = 512;

/// A path into a payload, as in Qdrant: keys joined by dots (`a.b`), `[]` for every element of an
/// array (`tags[].name`), `[2]` for one, and quotes around a key that holds a dot (`"a.b".c`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadPath {
    first: String,
    rest: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    Key(String),
    Every,
    At(usize),
}

impl PayloadPath {
    /// The path of one top-level key, whatever letters it has.
    pub fn key(key: impl Into<String>) -> Self {
        Self { first: key.into(), rest: Vec::new() }
    }

    /// The values at this path; an array is one value here (see [`each`](Self::each)).
    pub fn values<'a>(&self, payload: &'a Payload) -> Vec<&'a Value> {
        let mut found: Vec<&Value> = payload.get(&self.first).into_iter().collect();
        for step in &self.rest {
            let mut next = Vec::with_capacity(found.len());
            for value in found {
                match (step, value) {
                    (Step::Key(key), Value::Object(map)) => next.extend(map.get(key)),
                    (Step::Every, Value::Array(values)) => next.extend(values),
                    (Step::At(at), Value::Array(values)) => next.extend(values.get(*at)),
                    _ => {}
                }
            }
            found = next;
        }
        found
    }

    /// Copies what this path names from one payload into another, with the objects around it. A
    /// path with brackets copies the whole array that the first bracket speaks of.
    pub(crate) fn copy_into(&self, from: &Payload, into: &mut Payload) {
        let Some(value) = from.get(&self.first) else { return };
        let mut keys = vec![&self.first];
        let mut value = value;
        for step in &self.rest {
            match (step, value) {
                (Step::Key(key), Value::Object(map)) => match map.get(key) {
                    Some(inner) => {
                        keys.push(key);
                        value = inner;
                    }
                    None => return,
                },
                (Step::Key(_), _) => return,
                (Step::Every | Step::At(_), _) => break,
            }
        }
        let mut place = into;
        let Some((last, objects)) = keys.split_last() else { return };
        for key in objects {
            let inner = place.entry(key.as_str()).or_insert_with(|| Value::Object(Payload::new()));
            match inner {
                Value::Object(map) => place = map,
                _ => return,
            }
        }
        place.insert((*last).clone(), value.clone());
    }

    /// Removes what this path names; a path with brackets removes the named elements' keys.
    pub(crate) fn remove_from(&self, payload: &mut Payload) {
        fn remove(value: &mut Value, steps: &[Step]) {
            match (steps, value) {
                ([Step::Key(key)], Value::Object(map)) => {
                    map.remove(key);
                }
                ([Step::Every], Value::Array(values)) => values.clear(),
                ([Step::At(at)], Value::Array(values)) if *at < values.len() => {
                    values.remove(*at);
                }
                ([Step::Key(key), rest @ ..], Value::Object(map)) => {
                    if let Some(inner) = map.get_mut(key) {
                        remove(inner, rest);
                    }
                }
                ([Step::Every, rest @ ..], Value::Array(values)) => {
                    values.iter_mut().for_each(|v| remove(v, rest))
                }
                ([Step::At(at), rest @ ..], Value::Array(values)) => {
                    if let Some(inner) = values.get_mut(*at) {
                        remove(inner, rest);
                    }
                }
                _ => {}
            }
        }
        if self.rest.is_empty() {
            payload.remove(&self.first);
        } else if let Some(value) = payload.get_mut(&self.first) {
            remove(value, &self.rest);
        }
    }

    /// The values at this path with the elements of an array in its place (one level), which is
    /// what a match or range condition looks at.
    pub fn each<'a>(&self, payload: &'a Payload) -> Vec<&'a Value> {
        let mut each = Vec::new();
        for value in self.values(payload) {
            match value {
                Value::Array(values) => each.extend(values),
                value => each.push(value),
            }
        }
        each
    }
}

impl FromStr for PayloadPath {
    type Err = Error;

    /// Reads a path.
    ///
    /// # Errors
    /// `Invalid` with the place of the mistake.
    fn from_str(text: &str) -> Result<Self> {
        let fail = |why: &str| Error::invalid(format!("payload path {text:?}: {why}"));
        if text.len() > MAX_PATH_BYTES {
            return Err(Error::invalid(format!(
                "a payload path of {} bytes; at most {MAX_PATH_BYTES} are allowed",
                text.len()
            )));
        }
        let mut steps = Vec::new();
        let mut left = text;
        loop {
            let (key, after) = if let Some(quoted) = left.strip_prefix('"') {
                let end = quoted.find('"').ok_or_else(|| fail("a quote is not closed"))?;
                (&quoted[..end], &quoted[end + 1..])
            } else {
                left.split_at(left.find(['.', '[', ']', '"']).unwrap_or(left.len()))
            };
            if key.is_empty() {
                return Err(fail("a key is empty"));
            }
            steps.push(Step::Key(key.to_owned()));
            left = after;
            while let Some(inside) = left.strip_prefix('[') {
                let end = inside.find(']').ok_or_else(|| fail("a bracket is not closed"))?;
                steps.push(match &inside[..end] {
                    "" => Step::Every,
                    n => Step::At(
                        n.parse().map_err(|_| fail("only a number or nothing may stand in brackets"))?,
                    ),
                });
                left = &inside[end + 1..];
            }
            if left.is_empty() {
                break;
            }
            left = left.strip_prefix('.').ok_or_else(|| fail("a dot is missing between two keys"))?;
        }
        let mut steps = steps.into_iter();
        match steps.next() {
            Some(Step::Key(first)) => Ok(Self { first, rest: steps.collect() }),
            _ => Err(fail("it must start with a key")),
        }
    }
}

impl fmt::Display for PayloadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn key(f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
            if key.contains(['.', '[', ']']) || key.is_empty() {
                write!(f, "\"{key}\"")
            } else {
                f.write_str(key)
            }
        }
        key(f, &self.first)?;
        for step in &self.rest {
            match step {
                Step::Key(k) => {
                    f.write_str(".")?;
                    key(f, k)?;
                }
                Step::Every => f.write_str("[]")?,
                Step::At(at) => write!(f, "[{at}]")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PayloadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, payload: Value) -> Vec<Value> {
        let Value::Object(payload) = payload else { panic!("an object") };
        path.parse::<PayloadPath>().unwrap().values(&payload).into_iter().cloned().collect()
    }

    #[test]
    fn paths_reach_nested_keys_and_array_elements() {
        let payload = serde_json::json!({"a": {"b": [{"c": 1}, {"c": 2}, {}]}, "x.y": 3, "n": null});
        assert_eq!(at("a.b[].c", payload.clone()), [1, 2]);
        assert_eq!(at("a.b[1].c", payload.clone()), [2]);
        assert_eq!(at("a.b.c", payload.clone()), Vec::<Value>::new());
        assert_eq!(at("\"x.y\"", payload.clone()), [3]);
        assert_eq!(at("n", payload), [Value::Null]);
    }

    #[test]
    fn a_malformed_path_is_refused() {
        for bad in ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a]b", "\"a", "a[1]b", "[]"] {
            assert!(bad.parse::<PayloadPath>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_prints_as_it_is_read() {
        for text in ["a", "a.b[].c[3]", "\"x.y\".z"] {
            assert_eq!(text.parse::<PayloadPath>().unwrap().to_string(), text);
        }
    }
}
