//! The layers of a config, file below environment, as one figment tree in which every value
//! knows where it came from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Num, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};
use toml::de::{DeTable, DeValue};

use super::problem::{ConfigErrors, Origin, Problem, did_you_mean};

/// What every variable of the environment that sets a key starts with.
pub(super) const ENV_PREFIX: &str = "MAINSTAY_";
/// What stands between the levels of a key in the name of a variable.
const ENV_LEVEL: &str = "__";

/// One layer for figment.
struct Layer {
    metadata: Metadata,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok([(Profile::Default, self.dict.clone())].into())
    }
}

/// File and environment merged.
pub(super) struct Layers {
    figment: Figment,
    file: Option<PathBuf>,
    lines: BTreeMap<String, usize>,
    /// Problems of the layers themselves, such as an unusable name of a variable.
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    /// Reads the text and lays the variables over it.
    ///
    /// # Errors
    /// Every syntax error of the text, each with its line and column.
    pub(super) fn new(
        text: &str,
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        ConfigErrors::of(errors.iter().map(|error| syntax_problem(error, text, file)).collect())?;
        let mut lines = BTreeMap::new();
        let dict = table_dict(table.get_ref(), "", text, &mut lines);
        let members: Vec<String> = match dict.get("members") {
            Some(Value::Dict(_, members)) => members.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let metadata = Metadata::from("config", Source::File(file.map(Path::to_owned).unwrap_or_default()));
        let mut figment = Figment::from(Layer { metadata, dict });
        let mut problems = Vec::new();
        // Sorted, so that two variables in conflict end the same way each time.
        for (name, value) in env.into_iter().collect::<BTreeMap<_, _>>() {
            match key_path(&name, &members) {
                Ok(None) => {}
                Ok(Some(path)) => {
                    let metadata = Metadata::from(name, Source::Custom("environment".into()));
                    figment = figment.merge(Layer { metadata, dict: nest(&path, value) });
                }
                Err(problem) => problems.push(problem.at(Origin::Env(name))),
            }
        }
        Ok(Self { figment, file: file.map(Path::to_owned), lines, problems })
    }

    /// The merged tree.
    pub(super) fn root(&self) -> Dict {
        let data = self.figment.data().unwrap_or_default();
        data.into_iter().find(|(profile, _)| *profile == Profile::Default).map(|(_, d)| d).unwrap_or_default()
    }

    /// Where the value at a key came from.
    pub(super) fn origin(&self, key: &str, value: &Value) -> Origin {
        let leaf = match value {
            Value::Dict(_, dict) => dict.values().next().unwrap_or(value),
            _ => value,
        };
        match self.figment.get_metadata(leaf.tag()) {
            Some(Metadata { source: Some(Source::Custom(_)), name, .. }) => Origin::Env(name.to_string()),
            _ => self.file_origin(key),
        }
    }

    /// The place of a key in the file: its line, or that of the nearest section around it.
    pub(super) fn file_origin(&self, key: &str) -> Origin {
        let mut rest = key;
        let line = loop {
            if let Some(line) = self.lines.get(rest) {
                break Some(*line);
            }
            match rest.rsplit_once('.') {
                Some((parent, _)) => rest = parent,
                None => break None,
            }
        };
        Origin::File { path: self.file.clone(), line }
    }
}

fn syntax_problem(error: &toml::de::Error, text: &str, file: Option<&Path>) -> Problem {
    let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
    Problem::new("", format!("not valid TOML at line {line}, column {column}: {}", error.message().trim()))
        .at(Origin::File { path: file.map(Path::to_owned), line: Some(line) })
}

/// Line and column in characters, both from 1, of a place in bytes.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn table_dict(table: &DeTable<'_>, path: &str, text: &str, lines: &mut BTreeMap<String, usize>) -> Dict {
    table
        .iter()
        .map(|(key, value)| {
            let path =
                if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
            lines.entry(path.clone()).or_insert_with(|| line_and_column(text, key.span().start).0);
            (key.get_ref().to_string(), from_toml(value.get_ref(), &path, text, lines))
        })
        .collect()
}

fn from_toml(value: &DeValue<'_>, path: &str, text: &str, lines: &mut BTreeMap<String, usize>) -> Value {
    match value {
        DeValue::String(s) => Value::String(Tag::Default, s.to_string()),
        DeValue::Boolean(b) => Value::Bool(Tag::Default, *b),
        DeValue::Integer(n) => match i128::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Num(Tag::Default, Num::I128(n)),
            Err(_) => Value::String(Tag::Default, n.as_str().to_owned()),
        },
        DeValue::Float(n) => match n.as_str().parse::<f64>() {
            Ok(n) => Value::Num(Tag::Default, Num::F64(n)),
            Err(_) => Value::String(Tag::Default, n.as_str().to_owned()),
        },
        DeValue::Datetime(at) => Value::String(Tag::Default, at.to_string()),
        DeValue::Array(values) => Value::Array(
            Tag::Default,
            values.iter().map(|value| from_toml(value.get_ref(), path, text, lines)).collect(),
        ),
        DeValue::Table(table) => Value::Dict(Tag::Default, table_dict(table, path, text, lines)),
    }
}

/// The key that a variable sets; `None` if it is none of ours.
///
/// Names of variables have no case and no `-`, so a member is found by its name without them.
fn key_path(name: &str, members: &[String]) -> Result<Option<Vec<String>>, Problem> {
    let Some(rest) = name.strip_prefix(ENV_PREFIX) else { return Ok(None) };
    if !rest.contains(ENV_LEVEL) {
        return one_underscore_too_few(rest).map_or(Ok(None), Err);
    }
    let mut path: Vec<String> = rest.split(ENV_LEVEL).map(str::to_lowercase).collect();
    if path.iter().any(String::is_empty) {
        return Err(Problem::new("", format!("the variable's name has an empty level beside `{ENV_LEVEL}`"))
            .hint(format!("write for example {ENV_PREFIX}TIER{ENV_LEVEL}ACK")));
    }
    if let [section, member, ..] = path.as_mut_slice()
        && section == "members"
        && !members.contains(member)
    {
        let plain = |name: &str| name.to_lowercase().replace('-', "_");
        let mut same = members.iter().filter(|known| plain(known) == plain(member));
        if let Some(known) = same.next() {
            if let Some(other) = same.next() {
                return Err(Problem::new(
                    "members",
                    format!("the variable's name means member `{known}` as well as `{other}`"),
                ));
            }
            member.clone_from(known);
        }
    }
    Ok(Some(path))
}

/// A variable such as `MAINSTAY_TIER_ACK` would be passed over in silence; it is most likely meant
/// to be `MAINSTAY_TIER__ACK`. Others without a level (`MAINSTAY_CONFIG`) are not ours to judge.
fn one_underscore_too_few(rest: &str) -> Option<Problem> {
    let rest = rest.to_lowercase();
    let (section, key) = super::read::SECTIONS.iter().find_map(|(section, keys)| {
        let key = rest.strip_prefix(section)?.strip_prefix('_')?;
        (keys.is_empty() || keys.contains(&key)).then_some((section, key))
    })?;
    let meant = format!("{ENV_PREFIX}{section}{ENV_LEVEL}{key}").to_uppercase();
    Some(
        Problem::new("", format!("levels of a key are divided by two underscores, as in `{ENV_LEVEL}`"))
            .hint_if(did_you_mean(&meant, [meant.as_str()])),
    )
}

fn nest(path: &[String], value: String) -> Dict {
    let mut value = Value::String(Tag::Default, value);
    let mut keys = path.iter().rev().cloned().peekable();
    while let Some(key) = keys.next() {
        let dict = Dict::from([(key, value)]);
        if keys.peek().is_none() {
            return dict;
        }
        value = Value::Dict(Tag::Default, dict);
    }
    Dict::new()
}
