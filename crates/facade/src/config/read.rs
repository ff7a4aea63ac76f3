//! Reads typed values out of the merged tree and collects what is wrong instead of stopping.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use figment::value::{Dict, Value};

use super::layers::Layers;
use super::problem::{Origin, Problem, did_you_mean};

/// The sections of a config and their keys, for suggestions; `members` has keys of the user's own.
pub(super) const SECTIONS: [(&str, &[&str]); 10] = [
    ("tier", &["members", "ack", "deadline", "read", "hedge_after", "max_batch_bytes", "max_batch_points"]),
    ("members", &[]),
    ("log", &["path", "sync", "sync_interval", "max_bytes"]),
    ("breaker", &["failure_threshold", "success_threshold", "reset_timeout"]),
    ("retry", &["max_retries", "first_delay", "longest_delay", "budget"]),
    ("failover", &["check_interval", "auto_restore", "restore_delay"]),
    ("metrics", &["listen"]),
    ("drift", &["policy", "interval", "points_per_second", "deep", "max_repairs"]),
    ("shadow", &["share", "min_overlap"]),
    (
        "snapshots",
        &[
            "dir",
            "storage_options",
            "save",
            "interval",
            "every_files",
            "keep",
            "hourly",
            "daily",
            "weekly",
            "archive_interval",
            "max_rate",
            "graphs",
        ],
    ),
];

/// What reading has found so far.
pub(super) struct Reader<'a> {
    pub(super) layers: &'a Layers,
    problems: RefCell<Vec<Problem>>,
    origins: RefCell<BTreeMap<String, Origin>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a Layers) -> Self {
        Self { layers, problems: RefCell::default(), origins: RefCell::default() }
    }

    pub(super) fn root(&self) -> Section<'_> {
        Section { reader: self, path: String::new(), dict: self.layers.root(), asked: Vec::new() }
    }

    /// The problems, and where each key that was set came from.
    pub(super) fn finish(self) -> (Vec<Problem>, BTreeMap<String, Origin>) {
        (self.problems.into_inner(), self.origins.into_inner())
    }
}

/// One table of the config. Every key is asked for once; what nobody asked for is unknown.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    path: String,
    dict: Dict,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Records a problem with a key of this section.
    pub(super) fn problem(&self, key: &str, problem: Problem) {
        let key = self.key(key);
        let origin = self.reader.origins.borrow().get(&key).cloned();
        let origin = origin.unwrap_or_else(|| self.reader.layers.file_origin(&key));
        self.reader.problems.borrow_mut().push(Problem { key, ..problem }.at(origin));
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        let value = self.dict.remove(key)?;
        self.note_origin(key, &value);
        Some(value)
    }

    /// Whether the key, already taken, was set by a variable: those hold text only.
    fn is_from_env(&self, key: &str) -> bool {
        matches!(self.reader.origins.borrow().get(&self.key(key)), Some(Origin::Env(_)))
    }

    fn note_origin(&self, key: &str, value: &Value) {
        let key = self.key(key);
        let origin = self.reader.layers.origin(&key, value);
        self.reader.origins.borrow_mut().insert(key, origin);
    }

    /// Whether the key is set in this section (and was not taken yet).
    pub(super) fn has(&self, key: &str) -> bool {
        self.dict.contains_key(key)
    }

    /// Takes these keys unread.
    pub(super) fn pass_over(&mut self, keys: &[&'static str]) {
        for key in keys {
            self.take(key);
        }
    }

    /// A section inside this one; an empty one if there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let dict = match self.take(key) {
            Some(Value::Dict(_, dict)) => dict,
            Some(other) => {
                self.problem(
                    key,
                    Problem::new("", format!("wants a section, not {}", describe(&other)))
                        .hint(format!("write [{}]", self.key(key))),
                );
                Dict::new()
            }
            None => Dict::new(),
        };
        Section { reader: self.reader, path: self.key(key), dict, asked: Vec::new() }
    }

    /// All sections inside this one, by their names.
    pub(super) fn sections(mut self) -> Vec<(String, Section<'a>)> {
        let mut sections = Vec::new();
        for (name, value) in std::mem::take(&mut self.dict) {
            self.note_origin(&name, &value);
            if let Value::Dict(_, dict) = value {
                let path = self.key(&name);
                sections.push((name, Section { reader: self.reader, path, dict, asked: Vec::new() }));
            } else {
                let hint = format!("write [{}] and its keys below it", self.key(&name));
                self.problem(
                    &name,
                    Problem::new("", format!("wants a section, not {}", describe(&value))).hint(hint),
                );
            }
        }
        sections
    }

    fn wrong(&self, key: &str, wants: &str, value: &Value, hint: Option<String>) {
        self.problem(key, Problem::new("", format!("wants {wants}, not {}", describe(value))).hint_if(hint));
    }

    /// Text; `None` if it is not set or is no text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(_, text) => Some(text),
            other => {
                self.wrong(key, "text in quotes", &other, None);
                None
            }
        }
    }

    /// A list of texts; from the environment, words divided by commas.
    pub(super) fn list(&mut self, key: &'static str, into: &mut Vec<String>) {
        let Some(value) = self.take(key) else { return };
        let in_env = self.is_from_env(key);
        match value {
            Value::Array(_, values) => {
                into.clear();
                for value in values {
                    match value {
                        Value::String(_, text) => into.push(text),
                        other => self.wrong(key, "a list of texts in quotes", &other, None),
                    }
                }
            }
            Value::String(_, text) if in_env => {
                let text = text.trim();
                let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
                *into = inner
                    .split(',')
                    .map(|word| word.trim().trim_matches('"').to_owned())
                    .filter(|word| !word.is_empty())
                    .collect();
            }
            other => self.wrong(key, "a list", &other, Some(format!("write {key} = [\"…\"]"))),
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)], into: &mut T) {
        let Some(value) = self.take(key) else { return };
        let known = || words.iter().map(|(word, _)| *word);
        let all = known().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        match &value {
            Value::String(_, text) => match words.iter().find(|(word, _)| *word == text.trim()) {
                Some((_, found)) => *into = *found,
                None => self.problem(
                    key,
                    Problem::new("", format!("wants one of {all}, not {}", describe(&value)))
                        .hint_if(did_you_mean(text, known())),
                ),
            },
            other => self.wrong(key, &format!("one of {all}"), other, None),
        }
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str, into: &mut bool) {
        let Some(value) = self.take(key) else { return };
        let flag = match &value {
            Value::Bool(_, flag) => Some(*flag),
            Value::String(_, text) if self.is_from_env(key) => text.trim().parse().ok(),
            _ => None,
        };
        match flag {
            Some(flag) => *into = flag,
            None => self.wrong(key, "true or false", &value, None),
        }
    }

    /// A duration with its unit.
    pub(super) fn duration(&mut self, key: &'static str, into: &mut Duration) {
        if let Some(duration) = self.optional_duration(key) {
            *into = duration;
        }
    }

    /// A duration with its unit, if it is set and right.
    pub(super) fn optional_duration(&mut self, key: &'static str) -> Option<Duration> {
        const WANTS: &str = "a duration with a unit";
        let value = self.take(key)?;
        let hint = match &value {
            Value::Num(..) => format!("write {key} = \"{}s\" for seconds", number_text(&value)),
            _ => "write for example \"500ms\", \"5s\" or \"2min\"".to_owned(),
        };
        match &value {
            Value::String(_, text) => match humantime::parse_duration(text.trim()) {
                Ok(duration) => return Some(duration),
                Err(_) => self.wrong(key, WANTS, &value, Some(hint)),
            },
            other => self.wrong(key, WANTS, other, Some(hint)),
        }
        None
    }

    /// A size in bytes: text with a unit, or a whole number of bytes.
    pub(super) fn size(&mut self, key: &'static str, into: &mut u64) {
        let Some(value) = self.take(key) else { return };
        let size = match &value {
            Value::String(_, text) => text.trim().parse::<ByteSize>().ok().map(|size| size.as_u64()),
            Value::Num(_, n) => n
                .to_u128()
                .and_then(|n| u64::try_from(n).ok())
                .or_else(|| n.to_i128().and_then(|n| u64::try_from(n).ok())),
            _ => None,
        };
        match size {
            Some(size) => *into = size,
            None => {
                let hint = "write for example \"512MiB\" or \"2GiB\"".to_owned();
                self.wrong(key, "a size with a unit", &value, Some(hint));
            }
        }
    }

    /// A whole number from 0.
    pub(super) fn count<T: TryFrom<u64>>(&mut self, key: &'static str, into: &mut T) {
        let Some(value) = self.take(key) else { return };
        let count = match &value {
            Value::Num(_, n) => n.to_i128().and_then(|n| u64::try_from(n).ok()),
            Value::String(_, text) if self.is_from_env(key) => text.trim().replace('_', "").parse().ok(),
            _ => None,
        };
        match count.and_then(|count| T::try_from(count).ok()) {
            Some(count) => *into = count,
            None => self.wrong(key, "a whole number", &value, None),
        }
    }

    /// A number.
    pub(super) fn number(&mut self, key: &'static str, into: &mut f64) {
        let Some(value) = self.take(key) else { return };
        let number = match &value {
            Value::String(_, text) if self.is_from_env(key) => text.trim().parse().ok(),
            Value::Num(_, n) => n.to_f64().or_else(|| n.to_i128().map(|n| n as f64)),
            _ => None,
        };
        match number {
            Some(number) => *into = number,
            None => self.wrong(key, "a number", &value, None),
        }
    }

    /// Refuses what nobody asked for. `elsewhere` says where a key of that name would belong.
    pub(super) fn finish(self, elsewhere: impl Fn(&str) -> Option<String>) {
        for (key, value) in &self.dict {
            self.note_origin(key, value);
            let hint = elsewhere(key)
                .or_else(|| did_you_mean(key, self.asked.iter().copied()))
                .unwrap_or_else(|| format!("known here: {}", self.asked.join(", ")));
            self.problem(key, Problem::new("", "unknown key").hint(hint));
        }
    }
}

fn number_text(value: &Value) -> String {
    match value {
        Value::Num(_, n) => match (n.to_i128(), n.to_f64()) {
            (Some(n), _) => n.to_string(),
            (None, Some(n)) => n.to_string(),
            (None, None) => "…".to_owned(),
        },
        _ => "…".to_owned(),
    }
}

/// A value in a message: short, and a list or table without what is in it.
fn describe(value: &Value) -> String {
    match value {
        Value::String(_, text) if text.chars().count() > 40 => {
            format!("\"{}…\"", text.chars().take(40).collect::<String>().escape_debug())
        }
        Value::String(_, text) => format!("\"{}\"", text.escape_debug()),
        Value::Num(..) => number_text(value),
        Value::Bool(_, b) => b.to_string(),
        Value::Array(..) => "a list".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Char(_, c) => format!("\"{}\"", c.escape_debug()),
        Value::Empty(..) => "nothing".to_owned(),
    }
}
