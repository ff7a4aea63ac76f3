//! `snapshot`, from making one to the tier that comes back from it.

use serde_json::json;

use crate::shell::{Shell, TIER};

fn shell() -> Shell {
    let shell = Shell::with_config(&format!("{TIER}[snapshots]\ndir = \"snapshots\"\n"));
    shell.points("points.jsonl", 1..=40);
    shell.json(&["import", "docs", "points.jsonl"]);
    shell
}

#[test]
fn a_tier_comes_back_from_its_snapshot_and_the_archive() {
    let shell = shell();
    let made = shell.json(&["snapshot", "create"]);
    assert_eq!((&made["points"], &made["collections"]), (&json!(40), &json!(1)));
    let id = made["id"].as_str().unwrap();
    let listed = shell.json(&["snapshot", "list"]);
    assert_eq!(listed["snapshots"][0]["id"], id, "the newest comes first");
    assert_eq!(shell.json(&["snapshot", "show", id])["collections"][0]["points"], 40);
    assert!(shell.ok(&["snapshot", "list"]).contains(id));
    // Only the archive knows of this.
    shell.ok(&["delete", "docs", "--id", "7"]);
    assert_eq!(shell.fails(2, &["snapshot", "restore"])["kind"], "already_exists");
    std::fs::remove_dir_all(shell.path("data/log")).unwrap();
    let would = shell.json(&["snapshot", "restore", "--dry-run"]);
    assert_eq!((&would["dry_run"], &would["collections"]), (&json!(true), &json!(1)));
    let restored = shell.json(&["snapshot", "restore"]);
    assert_eq!((&restored["to"], &restored["epoch"]), (&would["to"], &json!(2)));
    assert_eq!(shell.count("docs"), 39);
    let text = shell.ok(&["snapshot", "restore", "--replace", "--until-lsn", &made["to"].to_string()]);
    assert!(text.contains("entries after it are left out") && text.contains("replaced-"), "{text}");
    assert_eq!(shell.count("docs"), 40);
    let status = shell.ok(&["status"]);
    assert!(status.contains("snapshots: ") && status.contains("archived to"), "{status}");
}

#[test]
fn a_damaged_snapshot_has_an_exit_code_of_its_own() {
    let shell = shell();
    let id = shell.json(&["snapshot", "create"])["id"].as_str().unwrap().to_owned();
    let good = shell.json(&["snapshot", "verify", "--all", "--deep"]);
    assert_eq!(good["good"], true);
    let mut folders = vec![shell.path("snapshots/buckets")];
    let mut damaged = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[60] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let ran = shell.run(&["snapshot", "verify", &id, "--format", "json"]);
    ran.expect(5);
    let problem = ran.value()["snapshots"][0]["problems"][0].to_string();
    assert!(problem.contains(".arrows") && problem.contains("checksum"), "{problem}");
}

#[test]
fn what_changed_between_snapshots_has_an_exit_code_too() {
    let shell = shell();
    let first = shell.json(&["snapshot", "create"])["id"].as_str().unwrap().to_owned();
    shell.run(&["snapshot", "diff", &first, &first]).expect(0);
    shell.ok(&["delete", "docs", "--id", "3", "--id", "4"]);
    let second = shell.json(&["snapshot", "create"])["id"].as_str().unwrap().to_owned();
    let ran = shell.run(&["snapshot", "diff", &first, &second, "--format", "json"]);
    ran.expect(3);
    assert_eq!(ran.value()["points"][0]["removed"], json!([3, 4]));
    let pruned = shell.json(&["snapshot", "prune", "--dry-run"]);
    assert_eq!(pruned["snapshots"], json!([]), "few enough to be kept");
}

#[test]
fn a_snapshot_as_json_comes_back_into_another_tier() {
    let shell = shell();
    shell.json(&["snapshot", "create"]);
    let exported = shell.json(&["snapshot", "export", "backup.json"]);
    assert_eq!(exported["points"], 40);
    assert_eq!(shell.fails(2, &["snapshot", "export", "backup.json"])["kind"], "already_exists");
    let other = Shell::new();
    other.write("backup.json", &shell.read("backup.json"));
    assert_eq!(other.json(&["snapshot", "import", "backup.json"])["points"], 40);
    let got =
        |shell: &Shell| shell.json(&["get", "docs", "4", "--with-vectors"])["points"][0]["payload"].clone();
    assert_eq!(got(&other), got(&shell));
    assert_eq!(other.fails(2, &["snapshot", "import", "backup.json"])["kind"], "already_exists");
    assert_eq!(other.json(&["snapshot", "import", "backup.json", "--merge"])["points"], 40);
    assert_eq!(other.count("docs"), 40);
    other.write("bad.json", "{\"version\": \"7.0\", \"metadata\": {}, \"collections\": {}}");
    let error = other.fails(5, &["snapshot", "import", "bad.json"]);
    assert!(error["message"].as_str().unwrap().contains("7.0"), "{error}");
}

#[test]
fn in_the_manual_mode_snapshots_are_made_by_their_command_alone() {
    let keys = "dir = \"snapshots\"\nevery_files = 1\nsave = \"manual\"";
    let shell = Shell::with_config(&format!("{TIER}[snapshots]\n{keys}\n"));
    std::fs::create_dir(shell.path("source")).unwrap();
    for name in ["a", "b"] {
        shell.write(&format!("source/{name}.rs"), "fn main() {}\n");
    }
    shell.json(&["index", "source", "--collection", "code"]);
    assert_eq!(shell.json(&["snapshot", "list"])["snapshots"], json!([]));
    let made = shell.json(&["snapshot", "create"]);
    assert_eq!(shell.json(&["snapshot", "list"])["snapshots"][0]["id"], made["id"]);
}

#[test]
fn some_collections_are_restored_into_a_store_by_itself_and_never_as_a_tier() {
    let shell = shell();
    shell.json(&["snapshot", "create"]);
    let args = ["snapshot", "restore", "--collection", "docs", "--dry-run"];
    let error = shell.fails(2, &args);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("needs --into STORE: a tier is restored whole"), "{error}");
    let error = shell.fails(2, &[&args[..], &["--into", "only"]].concat());
    assert!(error["message"].as_str().unwrap().contains("in memory"), "{error}");
    let error = shell.fails(2, &["snapshot", "restore", "--into", "lance:x", "--collection", "no/name"]);
    assert!(error["message"].as_str().unwrap().contains("no/name"), "{error}");
}

#[test]
fn a_tier_without_a_place_for_snapshots_says_which_key_names_one() {
    let shell = Shell::new();
    shell.points("points.jsonl", 1..=3);
    shell.json(&["import", "docs", "points.jsonl"]);
    for command in [&["snapshot", "create"][..], &["snapshot", "list"], &["snapshot", "restore"]] {
        let error = shell.fails(2, command);
        assert!(error["message"].as_str().unwrap().contains("snapshots.dir"), "{error}");
    }
}
