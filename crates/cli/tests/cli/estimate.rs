//! What points would take.

use serde_json::json;

use crate::shell::{Shell, TIER};

#[test]
fn an_estimate_says_what_files_take_and_advises() {
    // Neither a config nor a tier is needed for files.
    let shell = Shell { directory: tempfile::tempdir().unwrap(), env: Vec::new() };
    shell.points("points.jsonl", 1..=500);
    std::fs::create_dir(shell.path("src")).unwrap();
    shell.write("src/a.rs", "fn main() {}\n");
    let found = shell.json(&["estimate", "points.jsonl", "src", "--dimension", "64"]);
    let [file, directory] = found.as_array().unwrap().as_slice() else { panic!("{found}") };
    assert_eq!(
        (&file["kind"], &file["points"], &file["zone"]),
        (&json!("file"), &json!(500), &json!("green"))
    );
    assert_eq!((&directory["kind"], &directory["points"]), (&json!("directory"), &json!(1)));
    assert_eq!((&file["fits"], &file["advice"]), (&json!(true), &json!([])));
    assert!(file["bytes"].as_u64() >= file["points"].as_u64().map(|points| points * 300), "{file}");
    let text = shell.ok(&["estimate", "points.jsonl"]);
    for word in ["points.jsonl", "500", "green", "f32"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    for (args, word) in [
        (["estimate", "nothing"], "neither a directory, nor a file, nor a member"),
        (["estimate", "points.jsonl,--quantization=f8"], "f8"),
        (["estimate", "points.jsonl,--max-memory=much"], "much"),
        (["estimate", "src,--dimension=0"], "dimension"),
    ] {
        let args: Vec<_> = args.iter().flat_map(|arg| arg.split(',')).collect();
        let error = shell.fails(2, &args);
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
}

#[test]
fn an_estimate_of_what_would_be_refused_exits_with_5_and_so_does_its_member() {
    let shell = Shell::new();
    shell.points("points.jsonl", 1..=5_000);
    shell.ok(&["import", "docs", "points.jsonl"]);
    let member = shell.json(&["estimate", "only"]);
    assert_eq!((&member[0]["kind"], &member[0]["points"]), (&json!("member"), &json!(5_000)));
    let ran = shell.run(&["estimate", "only", "points.jsonl", "--max-memory", "1MiB", "--format", "json"]);
    ran.expect(5);
    let (member, file) = (&ran.value()[0], &ran.value()[1]);
    assert_eq!((&member["fits"], &file["fits"]), (&json!(false), &json!(false)));
    assert_eq!(member["max_memory"], 1 << 20);
    assert!(member["advice"][0].as_str().unwrap().contains("raise it"), "{member}");
    // A member that is given so little is not filled, and says so; in part it is.
    shell.write("mainstay.toml", &format!("{TIER}max_memory = \"1MiB\"\n[log]\npath = \"data/log\"\n"));
    let status = shell.run(&["status", "--format", "json"]);
    status.expect(4);
    let status = status.value();
    assert_eq!(status["members"][0]["state"], "quarantined");
    assert!(status["members"][0]["last_error"].as_str().unwrap().contains("5000 points"), "{status}");
    let some = "max_memory = \"4MiB\"\nwhen_full = \"partial\"\n";
    shell.write("mainstay.toml", &format!("{TIER}{some}[log]\npath = \"data/log\"\n"));
    let status = shell.json(&["status"]);
    assert_eq!(
        (&status["members"][0]["state"], &status["members"][0]["partial"]),
        (&json!("live"), &json!(true))
    );
    let count = shell.json(&["count", "docs"]);
    assert_eq!(count["partial"], true);
    assert!(count["count"].as_u64().is_some_and(|count| 0 < count && count < 5_000), "{count}");
    assert_eq!(shell.fails(4, &["export", "docs", "all.jsonl"])["kind"], "unavailable");
}
