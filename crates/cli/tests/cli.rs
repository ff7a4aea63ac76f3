//! The built command: exit codes that scripts can trust, and JSON that programs can read.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with the config of a tier in memory, whose log is on disk: each run replays it.
fn tier() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config =
        "[tier]\nmembers = [\"standby\"]\n[members.standby]\nbackend = \"memory\"\n[log]\npath = \"log\"\n";
    std::fs::write(directory.path().join("mainstay.toml"), config).unwrap();
    directory
}

fn run(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mainstay")).current_dir(directory).args(args).output().unwrap()
}

/// The one JSON value on standard output of a run that must succeed.
fn answer(directory: &Path, args: &[&str]) -> Value {
    let output = run(directory, &[&["--format", "json"], args].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// The exit code and the error of a run that must fail.
fn refusal(directory: &Path, args: &[&str]) -> (i32, Value) {
    let output = run(directory, &[&["--format", "json"], args].concat());
    assert!(output.stdout.is_empty(), "{args:?}: an error leaves standard output alone");
    let error: Value = serde_json::from_slice(&output.stderr)
        .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), error["error"].clone())
}

fn lines(values: &[Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}

/// A tier with three points.
fn filled() -> TempDir {
    let directory = tier();
    let points = [
        json!({"id": 1, "vector": [1.0, 0.0], "payload": {"lang": "rust", "stars": 5}, "text": "one"}),
        json!({"id": 2, "vector": [0.0, 1.0], "payload": {"lang": "c"}}),
        json!({"id": "00000000-0000-0000-0000-000000000007", "vector": [0.6, 0.8]}),
    ];
    std::fs::write(directory.path().join("points.jsonl"), lines(&points)).unwrap();
    answer(directory.path(), &["collections", "create", "docs", "--dimension", "2"]);
    let imported = answer(directory.path(), &["import", "docs", "points.jsonl"]);
    assert_eq!(imported["points"], 3, "{imported}");
    directory
}

#[test]
fn points_are_imported_counted_read_searched_and_deleted() {
    let directory = filled();
    let at = directory.path();
    assert_eq!(answer(at, &["count", "docs"])["count"], 3);
    let filter = r#"{"must": [{"key": "lang", "match": {"value": "rust"}}]}"#;
    assert_eq!(answer(at, &["count", "docs", "--filter", filter])["count"], 1);
    let found = answer(at, &["get", "docs", "1"]).to_string();
    assert!(found.contains("\"rust\"") && found.contains("\"one\""), "{found}");
    std::fs::write(at.join("vector.json"), "[0.0, 1.0]").unwrap();
    let hits = answer(at, &["search", "docs", "--vector-file", "vector.json", "--limit", "2"]);
    assert_eq!(hits["hits"][0]["id"], 2, "{hits}");
    assert_eq!(hits["hits"].as_array().unwrap().len(), 2);
    assert_eq!(hits["served_by"], "standby");
    answer(at, &["delete", "docs", "--id", "2"]);
    assert_eq!(answer(at, &["count", "docs"])["count"], 2);
}

#[test]
fn an_export_is_imported_to_the_same_points() {
    for file in ["copy.jsonl", "copy.parquet"] {
        let directory = filled();
        let at = directory.path();
        answer(at, &["export", "docs", file]);
        answer(at, &["collections", "create", "again", "--dimension", "2"]);
        answer(at, &["import", "again", file]);
        for id in ["1", "2", "00000000-0000-0000-0000-000000000007"] {
            let point = |collection: &str| {
                let mut point = answer(at, &["get", collection, id, "--with-vectors"]);
                strip_versions(&mut point);
                point
            };
            assert_eq!(point("docs"), point("again"), "{file}");
        }
    }
}

fn strip_versions(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in ["version", "collection", "served_by", "lag", "level"] {
                map.remove(key);
            }
            map.values_mut().for_each(strip_versions);
        }
        Value::Array(values) => values.iter_mut().for_each(strip_versions),
        _ => {}
    }
}

#[test]
fn a_bad_line_is_named_and_the_import_goes_on_where_it_stopped() {
    let directory = tier();
    let at = directory.path();
    answer(at, &["collections", "create", "docs", "--dimension", "2"]);
    let good = lines(&[json!({"id": 1, "vector": [1.0, 0.0]})]);
    std::fs::write(at.join("points.jsonl"), format!("{good}{{\"id\": 2, \"vector\": [1.0]}}\n")).unwrap();
    let (code, error) = refusal(at, &["import", "docs", "points.jsonl"]);
    assert_eq!((code, &error["kind"]), (2, &json!("invalid")), "{error}");
    assert!(error["context"]["line"] == "2" && error["context"]["point"] == "2", "{error}");
    std::fs::write(at.join("points.jsonl"), format!("{good}{{\"id\": 2, \"vector\": [1.0, 2.0]}}\n"))
        .unwrap();
    answer(at, &["import", "docs", "points.jsonl"]);
    assert_eq!(answer(at, &["count", "docs"])["count"], 2);
}

#[test]
fn wrong_input_exits_with_2_and_says_what_to_do() {
    let directory = tier();
    let at = directory.path();
    let cases: [(&[&str], &str); 5] = [
        (&["count", "nosuch"], "not_found"),
        (&["collections", "create", "a/b", "--dimension", "2"], "invalid"),
        (&["collections", "create", "docs", "--dimension", "0"], "invalid"),
        (&["collections", "create", "docs", "--dimension", "2", "--distance", "near"], "invalid"),
        (&["--config", "nosuch.toml", "status"], "invalid"),
    ];
    for (args, kind) in cases {
        let (code, error) = refusal(at, args);
        assert_eq!((code, error["kind"].as_str()), (2, Some(kind)), "{args:?}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    }
    let usage = run(at, &["nosuch"]);
    assert_eq!(usage.status.code(), Some(2), "a command that is none");
}

#[test]
fn a_backend_that_is_not_compiled_in_is_told_with_its_feature() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    answer(at, &["init"]);
    assert_eq!(refusal(at, &["init"]).0, 2, "a config that is there is not overwritten");
    if !cfg!(feature = "lance") {
        let (code, error) = refusal(at, &["status"]);
        assert_eq!(code, 2, "{error}");
        assert!(error.to_string().contains("feature `lance`"), "{error}");
    }
    if !cfg!(feature = "qdrant") {
        let config =
            "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"qdrant\"\nurl = \"http://localhost:6334\"\n";
        std::fs::write(at.join("mainstay.toml"), config).unwrap();
        assert!(refusal(at, &["status"]).1.to_string().contains("feature `qdrant`"));
    }
}

#[test]
fn every_problem_of_a_config_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        "[tier]\nmembers = [\"a\"]\ndeadlin = \"5s\"\n[members.a]\nbackend = \"memory\"\nmax_memory = 1.5\n";
    std::fs::write(directory.path().join("mainstay.toml"), config).unwrap();
    let output = run(directory.path(), &["--format", "json", "config", "check"]);
    assert_eq!(output.status.code(), Some(2));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["ok"], answer["problems"].as_array().map(Vec::len)),
        (&json!(false), Some(2)),
        "{answer}"
    );
}

#[test]
fn status_and_collections_say_what_is_there() {
    let directory = filled();
    let at = directory.path();
    let status = answer(at, &["status"]);
    assert_eq!(status["members"][0]["name"], "standby", "{status}");
    let collections = answer(at, &["collections", "list"]).to_string();
    assert!(collections.contains("\"docs\""), "{collections}");
    let table = run(at, &["status"]);
    assert_eq!(table.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&table.stdout).contains("standby"));
}

#[test]
fn a_collection_is_dropped_only_with_a_yes() {
    let directory = filled();
    let at = directory.path();
    assert_eq!(refusal(at, &["collections", "drop", "docs"]).0, 2);
    answer(at, &["collections", "drop", "docs", "--yes"]);
    assert_eq!(refusal(at, &["count", "docs"]).0, 2);
}
