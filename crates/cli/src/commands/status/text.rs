//! Status for people, on one screen.

use std::fmt::Write as _;

use serde_json::Value;

use crate::output::{short, table};

/// Characters of an error or a message on the screen.
const MOST: usize = 100;

/// Health, members, breakers, log, and what is not healthy.
pub fn screen(status: &Value) -> String {
    let health = &status["health"];
    let mut text = format!("{}: {}\n", word(&health["status"]), short(&word(&health["message"]), MOST));
    text.push_str(&members(status));
    text.push('\n');
    text.push_str(&calls(status));
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{}", summary(status));
    if status["snapshots"].is_object() {
        let _ = write!(text, "\n{}", snapshots(&status["snapshots"]));
    }
    for member in list(&status["members"]).iter().filter(|member| member["notice"].is_string()) {
        let _ = write!(text, "\n{}: {}", word(&member["name"]), word(&member["notice"]));
    }
    for component in list(&health["components"]).iter().filter(|component| component["status"] != "healthy") {
        let (name, status) = (word(&component["name"]), word(&component["status"]));
        let _ = write!(text, "\n{name} {status}: {}", short(&word(&component["message"]), MOST));
    }
    text
}

/// The whole status on one line, for logs.
pub fn line(status: &Value) -> String {
    let mut text = format!(
        "{} · level {} ({}) · active {}",
        word(&status["health"]["status"]),
        word(&status["level"]),
        word(&status["level_name"]),
        active(status)
    );
    for member in list(&status["members"]) {
        let [name, state, lag, breaker] = ["name", "state", "lag", "breaker"].map(|key| word(&member[key]));
        let _ = write!(text, " · {name} {state} lag {lag} breaker {breaker}");
    }
    let _ = write!(text, " · log {} to {}", word(&status["log"]["first"]), word(&status["log"]["last"]));
    text
}

fn members(status: &Value) -> String {
    let header =
        ["member", "backend", "health", "state", "for", "cursor", "durable", "lag", "memory", "serves"];
    let rows = list(&status["members"]).iter().enumerate().map(|(at, member)| {
        let state = word(&member["state"]);
        [
            word(&member["name"]),
            word(&member["backend"]),
            word(&component(status, at)["status"]),
            if member["partial"] == true { format!("{state}, partial") } else { state },
            format!("{} s", word(&member["for_seconds"])),
            word(&member["cursor"]),
            word(&member["durable"]),
            word(&member["lag"]),
            mebibytes(&member["memory_bytes"]),
            serves_first(member),
        ]
    });
    table(header, rows)
}

fn calls(status: &Value) -> String {
    let header = [
        "member",
        "breaker",
        "calls",
        "failed",
        "rejected",
        "opened",
        "available",
        "times of",
        "p50",
        "p99",
        "overlap",
    ];
    let rows = list(&status["members"]).iter().enumerate().map(|(at, member)| {
        let breaker = &member["breaker_metrics"];
        let [operation, p50, p99] = times(&component(status, at)["latency"]);
        [
            word(&member["name"]),
            word(&member["breaker"]),
            word(&breaker["total"]),
            word(&breaker["failures"]),
            word(&breaker["rejected"]),
            word(&breaker["to_open"]),
            number(&breaker["availability"], |share| format!("{:.1} %", share * 100.0)),
            operation,
            p50,
            p99,
            number(&member["shadow"]["overlap"], |overlap| format!("{overlap:.3}")),
        ]
    });
    table(header, rows)
}

fn summary(status: &Value) -> String {
    let log = &status["log"];
    format!(
        "level {} ({}) · active {} · log {} to {}, {} of {} · {} collections",
        word(&status["level"]),
        word(&status["level_name"]),
        active(status),
        word(&log["first"]),
        word(&log["last"]),
        mebibytes(&log["bytes"]),
        mebibytes(&log["max_bytes"]),
        word(&status["collections"]),
    )
}

/// Age, size and last result.
fn snapshots(snapshots: &Value) -> String {
    let archived =
        format!("archived to {}, lag {}", word(&snapshots["archived"]), word(&snapshots["archive_lag"]));
    let failed = match snapshots["last_error"].is_string() {
        true => " · the last one failed",
        false => "",
    };
    match snapshots["newest"].is_string() {
        true => format!(
            "snapshots: {} · {} s ago · {} points · {} · {archived}{failed}",
            word(&snapshots["newest"]),
            word(&snapshots["age_seconds"]),
            word(&snapshots["points"]),
            mebibytes(&snapshots["bytes"]),
        ),
        false => format!("snapshots: none yet · {archived}{failed}"),
    }
}

fn active(status: &Value) -> &str {
    status["active"].as_str().unwrap_or("none")
}

/// The health of a member: components come in the order of the members.
fn component(status: &Value, member: usize) -> &Value {
    &status["health"]["components"][member]
}

/// Quantiles once they are known, before that the mean.
fn times(latency: &Value) -> [String; 3] {
    let milliseconds = |value: &Value| number(value, |ms| format!("{ms:.3} ms"));
    let operation = word(&latency["operation"]);
    if latency["p50_ms"].is_null() && latency["mean_ms"].is_number() {
        return [operation, format!("mean {}", milliseconds(&latency["mean_ms"])), word(&Value::Null)];
    }
    [operation, milliseconds(&latency["p50_ms"]), milliseconds(&latency["p99_ms"])]
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text or a number as it is; a dash for nothing.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn number(value: &Value, text: impl Fn(f64) -> String) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), text)
}

fn mebibytes(bytes: &Value) -> String {
    number(bytes, |bytes| format!("{:.1} MiB", bytes / f64::from(1 << 20)))
}

/// Whether a member may serve first, or when it may.
fn serves_first(member: &Value) -> String {
    match (&member["trusted"], &member["restored_in_seconds"]) {
        (Value::Bool(true), _) if member["chosen"] == true => "first".to_owned(),
        (Value::Bool(true), _) => "in order".to_owned(),
        (_, Value::Null) => "last".to_owned(),
        (_, wait) => format!("in {wait} s"),
    }
}
