//! The built command, as a shell and a program see it, over a tier of one memory member whose log is on disk: what
//! one run writes, the next one reads.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod estimate;
mod shell;
#[cfg(feature = "snapshots")]
mod snapshot;
mod watching;

use std::collections::BTreeSet;
use std::path::Path;

use mainstay::{COMPILED_IN_BACKENDS, Config, Tier};
use serde_json::{Value, json};

use crate::shell::{Shell, TIER, point};

#[test]
fn what_init_writes_passes_the_check_or_the_missing_feature_is_named() {
    let shell = Shell { directory: tempfile::tempdir().unwrap(), env: Vec::new() };
    assert_eq!(shell.json(&["init"]), json!({ "written": "mainstay.toml" }));
    assert_eq!(shell.read("mainstay.toml"), Config::template());
    if COMPILED_IN_BACKENDS.contains(&"lance") {
        let checked = shell.json(&["config", "check"]);
        assert_eq!(checked["ok"], true);
    } else {
        let ran = shell.run(&["config", "check", "--format", "json"]);
        ran.expect(2);
        let checked = ran.value();
        assert_eq!((&checked["ok"], checked["problems"].as_array().unwrap().len()), (&json!(false), 1));
        let problem = &checked["problems"][0];
        assert_eq!(problem["key"], "members.primary.backend");
        assert!(problem["problem"].as_str().unwrap().contains("add the cargo feature `lance`"), "{problem}");
        let error = shell.fails(2, &["status"]);
        assert!(error["message"].as_str().unwrap().contains("add the cargo feature `lance`"), "{error}");
        assert!(!shell.path("data").exists(), "a tier that cannot be opened leaves nothing");
    }
}

#[test]
fn init_overwrites_only_when_told_to() {
    let shell = Shell::with_config("mine");
    assert_eq!(shell.fails(2, &["init"])["kind"], "already_exists");
    assert_eq!(shell.read("mainstay.toml"), "mine");
    shell.ok(&["init", "--force"]);
    assert_eq!(shell.read("mainstay.toml"), Config::template());
}

#[test]
fn the_effective_config_is_a_config() {
    let shell = Shell::new();
    let checked = shell.json(&["config", "check"]);
    assert_eq!((&checked["ok"], &checked["problems"]), (&json!(true), &json!([])));
    let effective = Config::from_toml(checked["effective"].as_str().unwrap()).unwrap();
    assert_eq!(effective.tier.members, ["only"]);
    assert_eq!(Config::from_toml(&shell.ok(&["config", "check"])).unwrap(), effective);
}

#[test]
fn every_problem_of_a_config_is_told() {
    let shell = Shell::with_config(&format!("{TIER}max_memory = 0\n[tyer]\nack = 1\n"));
    let ran = shell.run(&["config", "check", "--format", "json"]);
    ran.expect(2);
    let keys: BTreeSet<_> =
        ran.value()["problems"].as_array().unwrap().iter().map(|p| p["key"].to_string()).collect();
    assert_eq!(keys, BTreeSet::from(["\"members.only.max_memory\"".to_owned(), "\"tyer\"".to_owned()]));
    assert_eq!(shell.fails(2, &["count", "docs"])["kind"], "invalid");
}

#[test]
fn what_one_run_writes_the_next_one_reads() {
    let shell = Shell::new();
    shell.points("points.jsonl", 1..=30);
    let imported = shell.json(&["import", "docs", "points.jsonl", "--batch", "7"]);
    assert_eq!((&imported["points"], &imported["resumed"]), (&json!(30), &json!(false)));
    assert_eq!(imported["lsn"], 6, "one entry for the collection, five for the batches");

    assert_eq!(shell.ok(&["count", "docs"]), "30\n");
    assert_eq!(
        shell.json(&["count", "docs"]),
        json!({ "count": 30, "served_by": "only", "lag": 0, "partial": false })
    );
    let even = r#"{"must": [{"key": "lang", "match": {"value": "rust"}}]}"#;
    assert_eq!(shell.json(&["count", "docs", "--filter", even])["count"], 15);
    shell.write("even.json", even);
    assert_eq!(shell.json(&["count", "docs", "--filter", "@even.json"])["count"], 15);

    let got = shell.json(&["get", "docs", "4", "99"]);
    let mut expected = point(4);
    expected.as_object_mut().unwrap().remove("vector");
    expected["version"] = json!(2);
    let whole = json!({ "points": [expected], "served_by": "only", "level": 0, "lag": 0, "partial": false });
    assert_eq!(got, whole);
    assert!(shell.json(&["get", "docs", "4", "--with-vectors"])["points"][0]["vector"].is_array());

    let listed = shell.json(&["collections", "list"]);
    let vectors = json!({ "": { "dimension": 2, "distance": "cosine" } });
    let docs = json!({ "name": "docs", "points": 30, "vectors": vectors, "payload_indexes": {} });
    assert_eq!(listed, json!([docs]));

    let status = shell.json(&["status"]);
    assert_eq!(
        (&status["level"], &status["active"], &status["collections"]),
        (&json!(0), &json!("only"), &json!(1))
    );
    let member = &status["members"][0];
    assert_eq!(
        (&member["state"], &member["cursor"], &member["durable"]),
        (&json!("live"), &json!(6), &Value::Null)
    );
    for text in ["only", "live", "level 0 (normal)"] {
        assert!(shell.ok(&["status"]).contains(text), "{text}");
    }
}

#[test]
fn a_search_finds_the_nearest_and_shows_what_is_asked_for() {
    let shell = Shell::new();
    shell.points("points.jsonl", 1..=30);
    shell.ok(&["import", "docs", "points.jsonl", "--distance", "euclidean"]);
    shell.write("query.json", "[10.1, 1.5]");
    let search = |more: &[&str]| {
        let found = shell.json(&[&["search", "docs", "--vector-file", "query.json"], more].concat());
        found["hits"].as_array().unwrap().clone()
    };
    let ids = |hits: &[Value]| hits.iter().map(|hit| hit["id"].as_u64().unwrap()).collect::<Vec<_>>();
    let hits = search(&["-n", "3"]);
    assert_eq!(ids(&hits), [10, 11, 9]);
    assert_eq!(
        (&hits[0]["payload"], &hits[0]["text"]),
        (&json!({ "n": 10, "lang": "rust" }), &json!("text 10"))
    );
    assert!(hits[0]["score"].is_f64() && hits[0].get("vector").is_none());
    assert_eq!(ids(&search(&["-n", "2", "--offset", "1", "--exact"])), [11, 9]);
    let odd = r#"{"must_not": [{"key": "lang", "match": {"value": "rust"}}]}"#;
    assert_eq!(ids(&search(&["--limit", "2", "--filter", odd])), [11, 9]);
    assert_eq!(search(&["-n", "1", "--with-vectors"])[0]["vector"], json!([10.0, 1.5]));
    assert_eq!(shell.json(&["search", "docs", "--text", "hello"])["hits"].as_array().unwrap().len(), 10);
    assert!(shell.ok(&["search", "docs", "--text", "hello"]).contains("served by only · level 0 · lag 0"));
}

#[test]
fn points_go_by_id_and_by_filter() {
    let shell = Shell::new();
    shell.points("points.jsonl", 1..=10);
    shell.ok(&["import", "docs", "points.jsonl"]);
    let deleted = shell.json(&["delete", "docs", "--id", "1", "--id", "2"]);
    assert_eq!((&deleted["points"], deleted["lsn"].as_u64()), (&json!(2), Some(3)));
    assert_eq!(shell.count("docs"), 8);
    let above = r#"{"must": [{"key": "n", "range": {"gt": 7}}]}"#;
    assert_eq!(shell.json(&["delete", "docs", "--filter", above])["points"], 3);
    assert_eq!(shell.json(&["delete", "docs", "--filter", above])["points"], 0);
    assert_eq!(shell.count("docs"), 5);
    assert_eq!(shell.json(&["get", "docs", "1", "8"])["points"], json!([]));
}

#[test]
fn an_export_reads_back_as_the_same_points() {
    let shell = Shell::new();
    let uuid = "00000000-0000-0000-0000-0000000000ff";
    let lines = [
        json!({ "id": 1, "vector": [0.6, 0.8], "payload": { "a": { "b": [null, 1, -2.5e-300] } }, "text": "é\n" }),
        json!({ "id": u64::MAX, "vector": [1.0, 0.0] }),
        json!({ "id": uuid, "payload": { "": "" }, "text": "" }),
    ];
    shell.write("points.jsonl", &lines.map(|line| line.to_string()).join("\n"));
    shell.ok(&["import", "docs", "points.jsonl"]);
    assert_eq!(shell.json(&["export", "docs", "out.jsonl"]), json!({ "points": 3, "file": "out.jsonl" }));
    let exported = shell.read("out.jsonl");
    let back: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(back.len(), 3);
    assert_eq!(
        (&back[0]["id"], &back[0]["payload"], &back[0]["text"]),
        (&json!(1), &json!({ "a": { "b": [null, 1, -2.5e-300] } }), &json!("é\n"))
    );
    for copy in ["out.jsonl", "out.parquet"] {
        shell.ok(&["export", "docs", copy]);
        let other = format!("from_{}", copy.split_once('.').unwrap().1);
        assert_eq!(shell.json(&["import", &other, copy])["points"], 3);
        shell.ok(&["export", &other, "again.jsonl"]);
        assert_eq!(shell.read("again.jsonl"), exported, "{copy}");
    }
    let uuid_only = json!({ "must": [{ "has_id": [uuid] }] }).to_string();
    assert_eq!(shell.json(&["export", "docs", "one.jsonl", "--filter", &uuid_only])["points"], 1);
}

#[test]
fn an_export_waits_for_a_member_that_holds_everything() {
    let mut shell = Shell::new();
    shell.points("points.jsonl", 1..=20_000);
    shell.ok(&["import", "docs", "points.jsonl", "--batch", "500"]);
    // The member, empty at the start, is still far from the end of the log.
    shell.env = vec![("MAINSTAY_TIER__DEADLINE", "4ms")];
    let counted = shell.run(&["count", "docs"]);
    assert!(matches!(counted.output.status.code(), Some(0 | 4)), "{}", counted.stderr());
    let ran = shell.run(&["export", "docs", "out.jsonl"]);
    match ran.output.status.code() {
        Some(0) => assert_eq!(shell.read("out.jsonl").lines().count(), 20_000),
        _ => {
            ran.expect(4);
            assert!(!shell.path("out.jsonl").exists());
        }
    }
}

#[test]
fn an_import_names_the_bad_line_and_goes_on_there() {
    let shell = Shell::new();
    shell.points("points.jsonl", 1..=9);
    let good = shell.read("points.jsonl");
    shell.write("points.jsonl", &good.replace("{\"id\":6,", "{\"id\":\"6\","));
    let error = shell.fails(2, &["import", "docs", "points.jsonl", "--batch", "2"]);
    assert_eq!((&error["kind"], &error["context"]["line"]), (&json!("invalid"), &json!("6")));
    assert!(error["message"].as_str().unwrap().contains("a number in quotes"), "{error}");
    let text = shell.run(&["import", "docs", "points.jsonl"]);
    text.expect(2);
    assert!(text.stderr().contains("line: 6"), "{}", text.stderr());
    assert_eq!(shell.count("docs"), 5, "what comes before the bad line is there");

    shell.write("points.jsonl", &good);
    let resumed = shell.json(&["import", "docs", "points.jsonl"]);
    assert_eq!((&resumed["points"], &resumed["resumed"]), (&json!(4), &json!(true)));
    assert_eq!(shell.count("docs"), 9);
    // A finished import is no place to go on from, nor is one that is to start over.
    let again = shell.json(&["import", "docs", "points.jsonl"]);
    assert_eq!((&again["points"], &again["resumed"]), (&json!(9), &json!(false)));
}

#[test]
fn an_import_that_is_told_to_starts_over() {
    let shell = Shell::new();
    shell.points("points.jsonl", 1..=4);
    let good = shell.read("points.jsonl");
    shell.write("points.jsonl", &format!("{good}nonsense\n"));
    shell.fails(2, &["import", "docs", "points.jsonl"]);
    shell.write("points.jsonl", &good);
    let restarted = shell.json(&["import", "docs", "points.jsonl", "--restart"]);
    assert_eq!((&restarted["points"], &restarted["resumed"]), (&json!(4), &json!(false)));
}

#[test]
fn an_import_does_not_go_on_in_another_collection_of_the_same_name() {
    let shell = Shell::new();
    shell.points("points.jsonl", 1..=4);
    let good = shell.read("points.jsonl");
    shell.write("points.jsonl", &format!("{good}nonsense\n"));
    shell.fails(2, &["import", "docs", "points.jsonl"]);
    shell.write("points.jsonl", &good);
    shell.ok(&["collections", "drop", "docs", "--yes"]);
    shell.ok(&["collections", "create", "docs", "--dimension", "2"]);
    assert_eq!(shell.json(&["import", "docs", "points.jsonl"])["points"], 4);
    assert_eq!(shell.count("docs"), 4);
}

#[test]
fn a_log_in_memory_leaves_nothing_behind() {
    let shell = Shell::with_config(&format!("{TIER}[log]\npath = \":memory:\"\n"));
    shell.points("points.jsonl", 1..=5);
    assert_eq!(shell.json(&["import", "docs", "points.jsonl"])["points"], 5);
    assert_eq!(shell.json(&["collections", "list"]), json!([]));
    assert_eq!(shell.json(&["import", "docs", "points.jsonl"])["lsn"], 2);
    let left: BTreeSet<_> =
        std::fs::read_dir(shell.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mainstay.toml", "points.jsonl"].map(Into::into).into());
}

#[test]
fn collections_come_and_go() {
    let shell = Shell::new();
    let create =
        ["collections", "create", "c", "--dimension", "3", "--distance", "dot", "--index", "lang=keyword"];
    assert_eq!(shell.json(&create), json!({ "created": "c", "lsn": 1 }));
    assert_eq!(shell.fails(2, &create)["kind"], "already_exists");
    let listed = shell.json(&["collections", "list"]);
    let vectors = json!({ "": { "dimension": 3, "distance": "dot" } });
    let indexes = json!({ "lang": "keyword" });
    assert_eq!(listed, json!([{ "name": "c", "points": 0, "vectors": vectors, "payload_indexes": indexes }]));
    let refused = shell.fails(2, &["collections", "drop", "c"]);
    assert!(refused["message"].as_str().unwrap().contains("--yes"), "{refused}");
    assert_eq!(shell.json(&["collections", "drop", "c", "--yes"]), json!({ "dropped": "c", "lsn": 2 }));
    assert_eq!(shell.fails(2, &["collections", "drop", "c", "--yes"])["kind"], "not_found");
    assert_eq!(shell.json(&["collections", "list"]), json!([]));
}

#[test]
fn a_second_indexing_finds_nothing_to_do() {
    let shell = Shell::new();
    std::fs::create_dir(shell.path("source")).unwrap();
    shell.write("source/main.rs", "fn main() {\n    println!(\"hello\");\n}\n");
    let index = ["index", "source", "--collection", "code", "--chunk-chars", "400"];
    let first = shell.json(&index);
    assert_eq!((&first["files"], &first["changed"], &first["points"]), (&json!(1), &json!(1), &json!(1)));
    let second = shell.json(&index);
    assert_eq!((&second["files"], &second["changed"], &second["points"]), (&json!(1), &json!(0), &json!(0)));
    let found = shell.json(&["search", "code", "--text", "println hello"]);
    assert_eq!(found["hits"][0]["payload"]["path"], "main.rs");
}

#[test]
fn what_is_not_there_or_cannot_be_read_exits_with_2() {
    let shell = Shell::new();
    shell.points("points.jsonl", 1..=2);
    shell.ok(&["import", "docs", "points.jsonl"]);
    shell.write("vector.json", "{}");
    for (args, kind, fragment) in [
        (&["count", "dosc"][..], "not_found", "did you mean `docs`?"),
        (&["get", "nope", "1"], "not_found", "no collection `nope`"),
        (&["search", "nope", "--text", "x"], "not_found", "`nope`"),
        (&["delete", "nope", "--id", "1"], "not_found", "`nope`"),
        (&["export", "nope", "out.jsonl"], "not_found", "`nope`"),
        (&["count", "no/pe"], "invalid", "contains '/'"),
        (&["get", "docs", "seven"], "invalid", "`seven` is not a point id"),
        (&["count", "docs", "--filter", "{"], "invalid", "the filter is not JSON"),
        (&["count", "docs", "--filter", r#"{"must": 1}"#], "invalid", "filter.must"),
        (&["count", "docs", "--filter", "@nope.json"], "invalid", "nope.json"),
        (&["search", "docs", "--vector-file", "vector.json"], "invalid", "a JSON list of numbers"),
        (&["export", "docs", "out.txt"], "invalid", "names no format"),
        (&["export", "docs", "nope/out.jsonl"], "invalid", "does not exist"),
        (&["import", "docs", "nope.jsonl"], "invalid", "nope.jsonl"),
        (&["import", "other", "points.jsonl", "--distance", "far"], "invalid", "far"),
        (&["collections", "create", "c", "--dimension", "3", "--index", "lang"], "invalid", "PATH=KIND"),
        (&["--config", "nope.toml", "status"], "invalid", "nope.toml"),
    ] {
        let error = shell.fails(2, args);
        assert_eq!(error["kind"], kind, "{args:?}: {error}");
        assert!(error["message"].as_str().unwrap().contains(fragment), "{args:?}: {error}");
    }
    assert_eq!(
        shell.json(&["collections", "list"]).as_array().unwrap().len(),
        1,
        "nothing was made on the way"
    );
    let text = shell.run(&["count", "dosc"]);
    text.expect(2);
    assert_eq!(
        (text.stdout().as_str(), text.stderr().contains("next: `mainstay collections list`")),
        ("", true)
    );
}

#[test]
fn wrong_arguments_exit_with_2_in_either_form() {
    let shell = Shell::new();
    for args in [
        &["frobnicate"][..],
        &["count"],
        &["get", "docs"],
        &["search", "docs"],
        &["search", "docs", "--text", "x", "--limit", "many"],
        &["delete", "docs"],
        &["delete", "docs", "--id", "1", "--filter", "{}"],
        &["collections", "create", "c"],
        &["status", "--frobnicate"],
    ] {
        let error = shell.fails(2, args);
        assert_eq!(error["kind"], "invalid", "{args:?}: {error}");
        let text = shell.run(args);
        text.expect(2);
        assert_eq!((text.stdout().as_str(), text.stderr().starts_with("error: ")), ("", true), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["search", "--help"]] {
        assert!(shell.ok(args).contains("mainstay"), "{args:?}");
    }
    assert!(!shell.path("data").exists(), "arguments are read before anything is opened");
}

#[test]
fn a_log_that_is_in_use_exits_with_4() {
    let shell = Shell::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config::load_with_env(shell.path("mainstay.toml"), []).unwrap();
    let tier = runtime.block_on(Tier::open(config)).unwrap();
    let error = shell.fails(4, &["collections", "list"]);
    assert_eq!(error["kind"], "unavailable", "{error}");
    runtime.block_on(tier.close()).unwrap();
    shell.ok(&["collections", "list"]);
}

#[test]
fn a_full_log_exits_with_5_and_keeps_what_it_acked() {
    let shell = Shell::with_config(&format!(
        "{}[log]\npath = \"data/log\"\nmax_bytes = \"1MiB\"\n",
        TIER.replace("[members", "max_batch_bytes = \"256KiB\"\n[members")
    ));
    let line = |n: u64| json!({ "id": n, "vector": [1, 2], "text": "x".repeat(200 << 10) }).to_string();
    shell.write("points.jsonl", &(1..=8).map(line).collect::<Vec<_>>().join("\n"));
    let error = shell.fails(5, &["import", "docs", "points.jsonl"]);
    assert_eq!(error["kind"], "storage_full", "{error}");
    assert!(error["next"].as_str().unwrap().contains("raise the limit"), "{error}");
    assert!((1..8).contains(&shell.count("docs")));
}

#[test]
fn a_damaged_log_exits_with_5() {
    let shell = Shell::new();
    shell.points("points.jsonl", 1..=200);
    shell.ok(&["import", "docs", "points.jsonl", "--batch", "20"]);
    damage(&shell.path("data/log/entries/00000000000000000001.log"));
    assert_eq!(shell.fails(5, &["count", "docs"])["kind"], "corrupt");
}

#[test]
fn members_are_compared_and_one_alone_is_not() {
    let two = "[tier]\nmembers = [\"a\", \"b\"]\n[members.a]\nbackend = \"memory\"\n[members.b]\nbackend = \"memory\"\n";
    let shell = Shell::with_config(&format!("{two}[log]\npath = \"data/log\"\n"));
    shell.points("points.jsonl", 1..=30);
    shell.ok(&["import", "docs", "points.jsonl"]);
    let report = shell.json(&["drift", "--deep", "--repair", "log-wins"]);
    assert_eq!(
        (&report["drift"], &report["collections"], &report["policy"]),
        (&json!(false), &json!(1), &json!("log-wins"))
    );
    for member in report["members"].as_array().unwrap() {
        assert_eq!(
            (&member["points"], &member["deep_points"], &member["left_out"]),
            (&json!(30), &json!(30), &json!(null))
        );
    }
    assert!(shell.ok(&["drift"]).contains("no drift"));
    let error = shell.fails(2, &["drift", "--repair", "nobody-wins"]);
    assert!(error["message"].as_str().unwrap().contains("primary-wins"), "{error}");
    assert_eq!(Shell::new().fails(4, &["drift", "--wait", "5"])["kind"], "unavailable");
}

/// Overwrites texts of points in a file.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let places: Vec<_> =
        bytes.windows(8).enumerate().filter(|(_, w)| w == b"text 150").map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the text is in the file");
    for at in places {
        bytes[at..at + 8].copy_from_slice(b"TEXT 150");
    }
    std::fs::write(path, bytes).unwrap();
}
