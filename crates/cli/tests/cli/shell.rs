//! A directory with a config, and the command in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub const DOCUMENT: &str = include_str!("../../../../docs/cli.md");
pub const TIER: &str = "[tier]\nmembers = [\"only\"]\n[members.only]\nbackend = \"memory\"\n";

/// A directory with a config, and the command in it.
pub struct Shell {
    pub directory: TempDir,
    pub env: Vec<(&'static str, &'static str)>,
}

impl Shell {
    pub fn new() -> Self {
        Self::with_config(&format!("{TIER}[log]\npath = \"data/log\"\n"))
    }

    pub fn with_config(toml: &str) -> Self {
        let shell = Self { directory: tempfile::tempdir().unwrap(), env: Vec::new() };
        shell.write("mainstay.toml", toml);
        shell
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().unwrap();
        Ran { args: args.join(" "), output }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MAINSTAY_") {
                command.env_remove(name);
            }
        }
        command.env_remove("RUST_LOG").envs(self.env.iter().copied());
        command.current_dir(self.directory.path()).args(args);
        command
    }

    /// The lines of a command that goes on until this is dropped.
    pub fn lines(&self, args: &[&str]) -> Lines {
        let mut child = self.command(args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Lines { child, lines }
    }

    /// Asks again and again, for a minute at most.
    pub fn until<T>(&self, ask: impl Fn(&Self) -> Option<T>) -> T {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match ask(self) {
                Some(found) => return found,
                None => assert!(Instant::now() < until, "it does not come"),
            }
        }
    }

    /// The first lines of a command that goes on until it is ended.
    pub fn first_lines(&self, lines: usize, args: &[&str]) -> Vec<String> {
        let mut child = self.command(args).stdout(Stdio::piped()).spawn().unwrap();
        let read = BufReader::new(child.stdout.take().unwrap()).lines();
        let read = read.take(lines).collect::<Result<_, _>>().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        read
    }

    /// The text of a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        ran.expect(0);
        ran.stdout()
    }

    /// The JSON of a command that must succeed, checked against the document.
    pub fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--format", "json"]].concat());
        ran.expect(0);
        assert_eq!(ran.stderr(), "", "{}", ran.args);
        let value = ran.value();
        let words: Vec<_> =
            args.iter().take_while(|arg| arg.chars().all(|c| c.is_ascii_lowercase())).collect();
        let row = words.iter().take(2).map(|word| **word).collect::<Vec<_>>().join(" ");
        let known = documented(&row).or_else(|| documented(words[0]));
        let known = known.unwrap_or_else(|| panic!("docs/cli.md does not say what `{}` prints", ran.args));
        let unknown: Vec<_> = keys(&value).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "docs/cli.md lacks {unknown:?} of `{}`", ran.args);
        value
    }

    /// The JSON of a command that must fail with this code; it says nothing on standard output.
    pub fn fails(&self, code: i32, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--format", "json"]].concat());
        ran.expect(code);
        assert_eq!(ran.stdout(), "", "{}", ran.args);
        let value: Value =
            serde_json::from_str(&ran.stderr()).unwrap_or_else(|e| panic!("{e}: {}", ran.stderr()));
        let error = value["error"].as_object().unwrap();
        let fields = error.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(
            fields.into_iter().collect::<Vec<_>>(),
            ["collection", "context", "kind", "lsn", "member", "message", "next"]
        );
        value["error"].clone()
    }

    /// A file of points `first..=last`.
    pub fn points(&self, name: &str, ids: std::ops::RangeInclusive<u64>) {
        let mut lines = String::new();
        for n in ids {
            let _ = writeln!(lines, "{}", point(n));
        }
        self.write(name, &lines);
    }

    pub fn count(&self, collection: &str) -> u64 {
        self.json(&["count", collection])["count"].as_u64().unwrap()
    }
}

/// A command that goes on; dropping it kills it.
pub struct Lines {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Lines {
    /// The next event of this kind.
    pub fn next_of(&mut self, event: &str) -> Value {
        loop {
            let line = self.lines.next().unwrap().unwrap();
            let value: Value = serde_json::from_str(&line).unwrap();
            if value["event"] == event {
                return value;
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Ran {
    pub args: String,
    pub output: Output,
}

impl Ran {
    pub fn succeeded(&self) -> bool {
        self.output.status.success()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }

    /// One JSON value on standard output and nothing else.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.output.stdout)
            .unwrap_or_else(|error| panic!("{}: {error} in {:?}", self.args, self.stdout()))
    }

    pub fn expect(&self, code: i32) {
        let (out, err) = (self.stdout(), self.stderr());
        assert_eq!(self.output.status.code(), Some(code), "`mainstay {}`\n{out}\n{err}", self.args);
    }
}

pub fn point(n: u64) -> Value {
    let language = if n.is_multiple_of(2) { "rust" } else { "go" };
    json!({ "id": n, "vector": [n, 1.5], "payload": { "n": n, "lang": language }, "text": format!("text {n}") })
}

/// The keys that the document names for a command.
pub fn documented(command: &str) -> Option<BTreeSet<String>> {
    let (_, tables) = DOCUMENT.split_once("## JSON").unwrap();
    let row = tables.lines().find_map(|line| line.strip_prefix(&format!("| `{command}` | ")))?;
    Some(row.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// The keys of an answer; those that are names of the user's own are passed over.
pub fn keys(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(keys).collect(),
        Value::Object(map) => {
            let inner = map.iter().flat_map(|(key, value)| match key.as_str() {
                "payload" | "vector" | "payload_indexes" => BTreeSet::new(),
                "vectors" => value.as_object().into_iter().flatten().flat_map(|(_, v)| keys(v)).collect(),
                _ => keys(value),
            });
            inner.chain(map.keys().cloned()).collect()
        }
        _ => BTreeSet::new(),
    }
}
