//! What is wrong with a config: every problem at once, each with its key and its place.

use std::fmt;
use std::path::PathBuf;

use mainstay_core::{Error, ErrorKind};

/// Where a value of the config came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it: a default, or a config built in code.
    #[default]
    Default,
    /// The TOML text.
    File {
        /// The file; `None` for text that came from no file.
        path: Option<PathBuf>,
        /// The line, from 1, if it is known.
        line: Option<usize>,
    },
    /// An environment variable.
    Env(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => {
                match path {
                    Some(path) => write!(f, "{}", path.display())?,
                    None => f.write_str("TOML text")?,
                }
                line.iter().try_for_each(|line| write!(f, ":{line}"))
            }
            Self::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One problem of a config. It never holds a value that could be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path of the key with dots, such as `members.primary.uri`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it, if more can be said than the problem says.
    pub hint: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into(), hint: None, origin: Origin::Default }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn hint_if(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    pub(super) fn at(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        if self.origin != Origin::Default {
            write!(f, " ({})", self.origin)?;
        }
        Ok(())
    }
}

/// Every problem of a config; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// `Ok` if there is no problem.
    pub(super) fn of(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }

    pub(super) fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// The problems, in the order of the config's sections.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [problem] => write!(f, "the config has a problem: {problem}"),
            problems => {
                write!(f, "the config has {} problems:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigErrors> for Error {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(ErrorKind::Invalid, errors.to_string()).with_operation("config")
    }
}

/// `did you mean …?` for the known word nearest to this one, if one is near.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean `{near}`?"))
}

/// The known word nearest to this one, if it is near enough to have been meant.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
