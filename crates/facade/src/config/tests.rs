use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// A config without problems that tests add to or break.
const GOOD: &str = r#"
[tier]
members = ["primary", "standby"]
[members.primary]
backend = "lance"
uri = "data/lance"
[members.standby]
backend = "memory"
"#;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn problems(text: &str) -> Vec<Problem> {
    Config::from_toml(text).expect_err(text).problems().to_vec()
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = Config::from_toml(GOOD).unwrap();
    assert_eq!(config.tier.members, ["primary", "standby"]);
    assert_eq!(config.tier.deadline, Duration::from_secs(5));
    assert_eq!(config.tier.max_batch_bytes, 8 * 1024 * 1024);
    assert_eq!(config.tier.ack, Ack::Active);
    assert_eq!(config.log, LogConfig::default());
    assert_eq!(config.breaker, BreakerConfig::default());
    assert_eq!(config.failover, FailoverConfig::default());
    assert_eq!(
        config.members["primary"],
        MemberConfig::new(BackendConfig::Lance(LanceConfig::new("data/lance")))
    );
    assert_eq!(config.members["standby"], MemberConfig::new(BackendConfig::Memory(MemoryConfig::default())));
}

#[test]
fn every_key_is_read() {
    let config = Config::from_toml(
        r#"
        [tier]
        members = ["b", "a"]
        ack = "journal"
        deadline = "1500ms"
        max_batch_bytes = 65536
        max_batch_points = 7
        [members.a]
        backend = "memory"
        max_memory = "1.5GiB"
        when_full = "partial"
        allow_red_zone = true
        quantization = "i8"
        tombstone_ratio = 0.5
        timeout = "1s"
        write_timeout = "1min 1s"
        max_concurrent = 3
        [members.b]
        backend = "lance"
        uri = "s3://bucket/prefix"
        index_threshold_rows = 1_000
        keep_versions = "2m"
        [log]
        path = "/var/lib/log"
        sync = "periodic"
        sync_interval = "20ms"
        max_bytes = "2MB"
        [breaker]
        failure_threshold = 1
        success_threshold = 3
        reset_timeout = "100ms"
        [failover]
        check_interval = "250ms"
        [drift]
        policy = "primary-wins"
        interval = "1h"
        points_per_second = 7
        deep = 1.0
        max_repairs = 9
        [shadow]
        share = 0.5
        min_overlap = 0.75
        max_concurrent = 3
        "#,
    )
    .unwrap();
    assert_eq!(config.tier.members, ["b", "a"]);
    assert_eq!(
        (config.tier.ack, config.tier.deadline, config.tier.max_batch_bytes, config.tier.max_batch_points),
        (Ack::Journal, Duration::from_millis(1500), 65_536, 7)
    );
    let a = &config.members["a"];
    assert_eq!(
        a.backend,
        BackendConfig::Memory(MemoryConfig {
            max_memory: 3 << 29,
            when_full: WhenFull::Partial,
            allow_red_zone: true,
            quantization: Quantization::I8,
            tombstone_ratio: 0.5
        })
    );
    assert_eq!(
        (a.timeout, a.write_timeout, a.max_concurrent),
        (Duration::from_secs(1), Duration::from_secs(61), 3)
    );
    assert_eq!(
        config.members["b"].backend,
        BackendConfig::Lance(LanceConfig {
            uri: "s3://bucket/prefix".into(),
            storage: StorageConfig::default(),
            index_threshold_rows: 1_000,
            keep_versions: Duration::from_secs(120)
        })
    );
    assert_eq!(
        config.log,
        LogConfig {
            path: "/var/lib/log".into(),
            sync: Sync::Periodic,
            sync_interval: Duration::from_millis(20),
            max_bytes: 2_000_000
        }
    );
    let breaker = &config.breaker;
    assert_eq!((breaker.failure_threshold, breaker.success_threshold), (1, 3));
    assert_eq!(breaker.reset_timeout, Duration::from_millis(100));
    assert_eq!(config.failover.check_interval, Duration::from_millis(250));
    let interval = Some(Duration::from_secs(3_600));
    assert_eq!(
        config.drift,
        DriftConfig {
            policy: DriftPolicy::PrimaryWins,
            interval,
            points_per_second: 7,
            deep: 1.0,
            max_repairs: 9
        }
    );
    assert_eq!(config.shadow, ShadowConfig { share: 0.5, min_overlap: 0.75, max_concurrent: 3 });
}

/// A config and a fragment of its only problem; `+` adds to the good one.
const BAD: &[(&str, &str, &str)] = &[
    // (text, key, fragment)
    ("", "tier.members", "the tier has no members"),
    ("[tier]\nmembers = []", "tier.members", "members = [\"primary\"]"),
    ("+[teir]\nack = \"all\"", "teir", "did you mean `tier`?"),
    ("+deadline = \"5s\"", "members.standby.deadline", "belongs to [tier]"),
    ("+[log]\npth = \"x\"", "log.pth", "did you mean `path`?"),
    ("+[log]\ncolour = \"x\"", "log.colour", "known here: path, sync"),
    ("+[snapshot]\nkeep = 7", "snapshot", "did you mean `snapshots`?"),
    ("+[backups]\nkeep = 7", "backups", "unknown key"),
    ("+uri = \"x\"", "members.standby.uri", "is a key of backend `lance`"),
    ("+max_memroy = \"1GiB\"", "members.standby.max_memroy", "did you mean `max_memory`?"),
    ("+timeout = 5", "members.standby.timeout", "write timeout = \"5s\""),
    ("+timeout = \"5\"", "members.standby.timeout", "wants a duration with a unit, not \"5\""),
    ("+timeout = \"five seconds\"", "members.standby.timeout", "wants a duration"),
    ("+timeout = \"-1s\"", "members.standby.timeout", "wants a duration"),
    ("+timeout = true", "members.standby.timeout", "not true"),
    ("+timeout = \"0s\"", "members.standby.timeout", "0s is outside 1ms to 1h"),
    ("+timeout = \"20s\"", "members.standby.timeout", "longer than tier.deadline (5s)"),
    ("+write_timeout = \"2days\"", "members.standby.write_timeout", "outside"),
    ("+max_concurrent = 0", "members.standby.max_concurrent", "0 is outside 1 to 65536"),
    ("+max_concurrent = -1", "members.standby.max_concurrent", "wants a whole number, not -1"),
    ("+max_concurrent = 1.5", "members.standby.max_concurrent", "not 1.5"),
    ("+max_concurrent = \"64\"", "members.standby.max_concurrent", "wants a whole number, not \"64\""),
    ("+max_memory = \"two\"", "members.standby.max_memory", "\"2GiB\""),
    ("+max_memory = \"1KiB\"", "members.standby.max_memory", "1KiB is outside 1MiB to 1PiB"),
    ("+max_memory = -5", "members.standby.max_memory", "wants a size"),
    ("+max_memory = \"2GiB or so\"", "members.standby.max_memory", "wants a size"),
    ("+tombstone_ratio = 0", "members.standby.tombstone_ratio", "0 is not between 0 and 1"),
    ("+tombstone_ratio = 1.0", "members.standby.tombstone_ratio", "1 is not between"),
    ("+tombstone_ratio = nan", "members.standby.tombstone_ratio", "NaN is not between"),
    ("+tombstone_ratio = \"10%\"", "members.standby.tombstone_ratio", "wants a number"),
    ("+quantization = \"f8\"", "members.standby.quantization", "one of \"f32\", \"f16\", \"i8\""),
    ("+when_full = \"evict\"", "members.standby.when_full", "one of \"refuse\", \"partial\""),
    ("+allow_red_zone = \"please\"", "members.standby.allow_red_zone", "true or false"),
    ("+quantization = 16", "members.standby.quantization", "not 16"),
    ("+[log]\nsync = \"imediate\"", "log.sync", "did you mean `immediate`?"),
    ("+[log]\nsync = 1979-05-27", "log.sync", "not \"1979-05-27\""),
    ("+[log]\nsync_interval = \"0ms\"", "log.sync_interval", "outside 1ms"),
    ("+[log]\nmax_bytes = \"10MiB\"", "log.max_bytes", "less than two batches"),
    ("+[log]\npath = \"\"", "log.path", "is empty"),
    ("+[log]\npath = 7", "log.path", "wants text in quotes, not 7"),
    ("+[log]\npath = \"data/lance\"", "log.path", "is also the directory of member `primary`"),
    ("+[log]\npath = \"./data/x/../lance/\"", "log.path", "is also the directory of member `primary`"),
    ("+[log]\npath = \"data/lance/log\"", "log.path", "inside the directory of member `primary`"),
    ("+[log]\npath = \":memory:\"", "log.path", "member `primary` keeps its data longer"),
    ("+[breaker]\nfailure_threshold = 0", "breaker.failure_threshold", "outside 1 to 1000"),
    ("+[breaker]\nfailure_threshold = 99999999999", "breaker.failure_threshold", "wants a whole number"),
    ("+[breaker]\nreset_timeout = \"0s\"", "breaker.reset_timeout", "outside"),
    ("+[failover]\ncheck_interval = \"0s\"", "failover.check_interval", "outside"),
    ("+[failover]\nauto_restor = true", "failover.auto_restor", "auto_restore"),
    ("+[retry]\nbudget = 1.5", "retry.budget", "outside"),
    ("+[retry]\nmax_retries = -1", "retry.max_retries", "wants a whole number"),
    ("+[drift]\npolicy = \"log_wins\"", "drift.policy", "did you mean `log-wins`?"),
    ("+[drift]\ninterval = \"hourly\"", "drift.interval", "wants \"off\" or a duration"),
    ("+[drift]\ninterval = \"10ms\"", "drift.interval", "outside"),
    ("+[drift]\npoints_per_second = 0", "drift.points_per_second", "outside"),
    ("+[drift]\ndeep = 2", "drift.deep", "outside"),
    ("+[drift]\nmax_repairs = 0", "drift.max_repairs", "outside"),
    ("+[shadow]\nshare = 1.5", "shadow.share", "outside"),
    ("+[shadow]\nmin_overlap = nan", "shadow.min_overlap", "outside"),
    ("+[shadow]\nmax_concurrent = 0", "shadow.max_concurrent", "outside"),
    ("+[failover]\nauto_restore = 1", "failover.auto_restore", "wants true or false, not 1"),
    ("+[failover]\nrestore_delay = \"0s\"", "failover.restore_delay", "outside"),
    ("read = \"nearest\"\n+", "read", "unknown key"),
    (
        "[tier]\nmembers = [\"a\"]\nread = \"nearest\"\n[members.a]\nbackend = \"memory\"",
        "tier.read",
        "\"fastest\"",
    ),
    (
        "[tier]\nmembers = [\"a\"]\nhedge_after = \"soon\"\n[members.a]\nbackend = \"memory\"",
        "tier.hedge_after",
        "p99",
    ),
    (
        "[tier]\nmembers = [\"a\"]\nhedge_after = \"0s\"\n[members.a]\nbackend = \"memory\"",
        "tier.hedge_after",
        "outside",
    ),
    ("breaker = 5\n+", "breaker", "wants a section, not 5; write [breaker]"),
    ("+[members.third]\nbackend = \"memory\"", "members.third", "tier.members does not list it"),
    ("+[members.\"a b\"]\nbackend = \"memory\"", "members.a b", "contains ' '"),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"qdrant-edge\"\npath = \"x\"",
        "members.a.backend",
        "write backend = \"qdrant\" with a path",
    ),
    ("[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"qdrant\"", "members.a.url", "is not set"),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"qdrant\"\nurl = \"http://h:1\"\npath = \"x\"",
        "members.a.path",
        "is set beside a url",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"qdrant\"\nurl = \"localhost:6334\"",
        "members.a.url",
        "is no http:// or https:// address",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"qdrant\"\nurl = \"https://u:secret@h\"",
        "members.a.url",
        "carries credentials",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"qdrant\"\nurl = \"http://h:1\"\napi_key = \"s\"",
        "members.a.api_key",
        "unknown key",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"qdrant\"\nurl = \"http://h:1\"\nwrite_ordering = \"loose\"",
        "members.a.write_ordering",
        "weak",
    ),
    ("[tier]\nmembers = \"a\"\n[members.a]\nbackend = \"memory\"", "tier.members", "write members = [\"…\"]"),
    ("[tier]\nmembers = [1]\n[members.a]\nbackend = \"memory\"", "tier.members", "not 1"),
    (
        "[tier]\nmembers = [\"a\", \"a\"]\n[members.a]\nbackend = \"memory\"",
        "tier.members",
        "lists `a` twice",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lanse\"",
        "members.a.backend",
        "did you mean `lance`?",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"nosuch\"",
        "members.a.backend",
        "`memory`, `lance`, `qdrant`",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\ntimeout = \"1s\"",
        "members.a.backend",
        "backend = \"memory\" or",
    ),
    ("[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = 1", "members.a.backend", "wants text"),
    ("[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"", "members.a.uri", "is not set"),
    ("[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \" \"", "members.a.uri", "is empty"),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \"s3://key:secret@bucket\"",
        "members.a.uri",
        "carries credentials",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \"az://box/p?sig=secret\"",
        "members.a.uri",
        "carries credentials or a query",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \"s3:///prefix\"",
        "members.a.uri",
        "names no bucket",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \"s4://bucket\"",
        "members.a.uri",
        "neither a directory nor an object store",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \"x\"\n[members.a.storage_options]\nregion = \"x\"",
        "members.a.storage_options",
        "the uri is a directory",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \"s3://b\"\n[members.a.storage_options]\nendpoint = \"http://h\"",
        "members.a.storage_options.endpoint",
        "not encrypted",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \"s3://b\"\n[members.a.storage_options]\nendpoint = \"https://u:secret@h\"",
        "members.a.storage_options.endpoint",
        "carries credentials",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \"s3://b\"\n[members.a.storage_options]\nsession_token = \"hunter2\"",
        "members.a.storage_options.session_token",
        "come from the environment",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \"s3://b\"\n[members.a.storage_options]\nendpont = \"https://h\"",
        "members.a.storage_options.endpont",
        "did you mean `endpoint`?",
    ),
    (
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \"x\"\nkeep_versions = \"0s\"",
        "members.a.keep_versions",
        "outside",
    ),
    (
        "[tier]\nmembers = [\"a\", \"b\"]\n[members.a]\nbackend = \"lance\"\nuri = \"x\"\n[members.b]\nbackend = \"lance\"\nuri = \"./x/\"",
        "members.b.uri",
        "members `a` and `b` are at the same place",
    ),
    (
        "[tier]\nmembers = [\"a\"]\ndeadline = \"100us\"\n[members.a]\nbackend = \"memory\"\ntimeout = \"100us\"",
        "tier.deadline",
        "100us is outside 1ms",
    ),
    (
        "[tier]\nmembers = [\"a\"]\nmax_batch_points = 0\n[members.a]\nbackend = \"memory\"",
        "tier.max_batch_points",
        "0 is",
    ),
    (
        "[tier]\nmembers = [\"a\"]\nmax_batch_bytes = \"1B\"\n[members.a]\nbackend = \"memory\"",
        "tier.max_batch_bytes",
        "1B is",
    ),
    (
        "[tier]\nmembers = [\"a\"]\nack = \"none\"\n[members.a]\nbackend = \"memory\"",
        "tier.ack",
        "\"journal\"",
    ),
    ("+[tier.members.x]\n", "", "not valid TOML at line"),
    ("+x = ", "", "not valid TOML at line 8, column 5"),
    ("[tier\n", "", "not valid TOML at line 1"),
    ("a = 1\na = 2", "", "line 2, column 1"),
    ("tier = \"\u{7}\"", "", "line 1"),
];

#[test]
fn each_bad_config_is_refused_with_its_key_and_what_to_do() {
    let mut missed = Vec::new();
    for (text, key, fragment) in BAD {
        let text = match text.split_once('+') {
            Some((before, after)) => format!("{before}{}{after}", GOOD.trim_start()),
            None => (*text).to_owned(),
        };
        let problems = problems(&text);
        let found = problems.iter().find(|p| p.key == *key && p.to_string().contains(fragment));
        if found.is_none() {
            missed.push(format!("no {key:?} with {fragment:?} in {problems:?} for:\n{text}"));
        }
        assert!(!format!("{problems:?}").contains("secret"), "{problems:?}");
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[test]
fn a_mistyped_member_is_reported_on_both_sides() {
    let problems = problems(&GOOD.replace("members.standby", "members.stanby"));
    let [list, section] = problems.as_slice() else { panic!("{problems:#?}") };
    assert_eq!((list.key.as_str(), section.key.as_str()), ("tier.members", "members.stanby"));
    assert!(list.to_string().contains("did you mean `stanby`?"), "{list}");
    assert!(section.to_string().contains("did you mean `standby`?"), "{section}");
}

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    let errors = Config::from_toml(
        "[tier]\nmembers = [\"a\"]\nack = \"no\"\n\n[members.a]\nbackend = \"memory\"\nmax_memory = 0\n\n[lgo]\npath = \"x\"\n",
    )
    .unwrap_err();
    let found: Vec<_> = errors.problems().iter().map(|p| (p.key.as_str(), p.origin.to_string())).collect();
    assert_eq!(
        found,
        [
            ("lgo", "TOML text:9".to_owned()),
            ("tier.ack", "TOML text:3".to_owned()),
            ("members.a.max_memory", "TOML text:7".to_owned()),
        ]
    );
    assert!(errors.to_string().starts_with("the config has 3 problems:\n  - "), "{errors}");
    let error = mainstay_core::Error::from(errors);
    assert_eq!(error.kind(), mainstay_core::ErrorKind::Invalid);
}

#[test]
fn the_environment_lies_over_the_file() {
    let config = Config::from_toml_with_env(
        GOOD,
        env(&[
            ("MAINSTAY_TIER__ACK", "journal"),
            ("MAINSTAY_TIER__MEMBERS", "standby, primary"),
            ("MAINSTAY_TIER__MAX_BATCH_POINTS", "123"),
            ("MAINSTAY_MEMBERS__PRIMARY__URI", "12345"),
            ("MAINSTAY_MEMBERS__STANDBY__TOMBSTONE_RATIO", "0.25"),
            ("MAINSTAY_MEMBERS__STANDBY__MAX_MEMORY", "3GiB"),
            ("MAINSTAY_LOG__SYNC_INTERVAL", "3s"),
            ("MAINSTAY_CONFIG", "elsewhere.toml"),
            ("MAINSTAY_LOG", "debug"),
            ("HOME", "/root"),
        ]),
    )
    .unwrap();
    assert_eq!(config.tier.ack, Ack::Journal);
    assert_eq!(config.tier.members, ["standby", "primary"]);
    assert_eq!(config.tier.max_batch_points, 123);
    assert_eq!(config.members["primary"].backend, BackendConfig::Lance(LanceConfig::new("12345")));
    let BackendConfig::Memory(memory) = &config.members["standby"].backend else { panic!() };
    assert_eq!((memory.tombstone_ratio, memory.max_memory), (0.25, 3 << 30));
    assert_eq!(config.log.sync_interval, Duration::from_secs(3));
}

#[test]
fn the_environment_alone_makes_a_config() {
    let config = Config::from_toml_with_env(
        "",
        env(&[("MAINSTAY_TIER__MEMBERS", "[\"a\"]"), ("MAINSTAY_MEMBERS__A__BACKEND", "memory")]),
    )
    .unwrap();
    assert_eq!(config.tier.members, ["a"]);
}

#[test]
fn a_variable_finds_a_member_whose_name_it_cannot_spell() {
    let text = "[tier]\nmembers = [\"My-Store\"]\n[members.My-Store]\nbackend = \"memory\"\n";
    let config =
        Config::from_toml_with_env(text, env(&[("MAINSTAY_MEMBERS__MY_STORE__MAX_CONCURRENT", "9")]))
            .unwrap();
    assert_eq!(config.members["My-Store"].max_concurrent, 9);
}

#[test]
fn a_bad_variable_is_named() {
    for (name, value, fragment) in [
        ("MAINSTAY_TIER__ACK", "nobody", "tier.ack: wants one of"),
        ("MAINSTAY_TIER__DEADLINE", "5", "tier.deadline: wants a duration"),
        ("MAINSTAY_TIER__DEADLINE", "0s", "tier.deadline: 0s is outside"),
        ("MAINSTAY_TIER__MAX_BATCH_POINTS", "many", "wants a whole number, not \"many\""),
        ("MAINSTAY_TIER__ACKS", "all", "tier.acks: unknown key; did you mean `ack`?"),
        ("MAINSTAY_TIER_ACK", "all", "did you mean `MAINSTAY_TIER__ACK`?"),
        ("MAINSTAY_MEMBERS_PRIMARY_URI", "x", "two underscores"),
        ("MAINSTAY_TIER__", "x", "empty level"),
        ("MAINSTAY_TIER__ACK__X", "x", "tier.ack: wants one of"),
        ("MAINSTAY_MEMBERS__PRIMARY", "x", "members.primary: wants a section"),
        ("MAINSTAY_MEMBERS__THIRD__BACKEND", "memory", "members.third: `third` is defined"),
    ] {
        let errors = Config::from_toml_with_env(GOOD, env(&[(name, value)])).unwrap_err();
        let text = errors.to_string();
        assert!(
            text.contains(fragment) && text.contains(&format!("environment variable {name}")),
            "{name}: {text}"
        );
    }
}

#[test]
fn relative_paths_are_taken_from_the_directory_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mainstay.toml");
    std::fs::write(&file, GOOD).unwrap();
    let config = Config::load_with_env(&file, []).unwrap();
    assert_eq!(config.log.path, dir.path().join("data/log"));
    let BackendConfig::Lance(lance) = &config.members["primary"].backend else { panic!() };
    assert_eq!(PathBuf::from(&lance.uri), dir.path().join("data/lance"));

    let remote = GOOD.replace("data/lance", "s3://bucket/prefix") + "[log]\npath = \"/var/log\"";
    std::fs::write(&file, remote).unwrap();
    let config = Config::load_with_env(&file, []).unwrap();
    assert_eq!(config.log.path, PathBuf::from("/var/log"));
    assert_eq!(
        config.members["primary"].backend,
        BackendConfig::Lance(LanceConfig::new("s3://bucket/prefix"))
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |path: &Path| Config::load_with_env(path, []).unwrap_err().to_string();
    assert!(fails(&dir.path().join("none.toml")).contains("`mainstay init` writes one"));
    assert!(fails(dir.path()).contains("is a directory"));
    let latin = dir.path().join("latin.toml");
    std::fs::write(&latin, b"[tier]\n# \xe9\n").unwrap();
    let text = fails(&latin);
    assert!(text.contains("not UTF-8 at byte 9") && text.contains("latin.toml:2"), "{text}");
    let broken = dir.path().join("broken.toml");
    std::fs::write(&broken, "[tier]\nmembers = [\"a\"\n[x").unwrap();
    assert!(fails(&broken).contains("broken.toml:"), "{}", fails(&broken));
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    Config::from_toml(&format!("\u{feff}{GOOD}")).unwrap();
}

#[test]
fn what_is_written_reads_back_the_same() {
    let all = r#"
        [tier]
        members = ["b", "a", "c"]
        ack = "all"
        deadline = "3s 7ms 9ns"
        max_batch_bytes = "123456B"
        [members.a]
        backend = "memory"
        max_memory = "3GB"
        when_full = "partial"
        allow_red_zone = true
        quantization = "f16"
        tombstone_ratio = 0.30000000000000004
        [members.b]
        backend = "lance"
        uri = "odd \"name\"\\\n'''é"
        timeout = "1ms"
        [members.c]
        backend = "lance"
        uri = "gs://bucket/p"
        [members.c.storage_options]
        endpoint = "http://h:9000"
        region = "eu \"1"
        allow_http = true
        [log]
        path = "data/\"log"
        sync = "manual"
        [drift]
        policy = "log-wins"
        interval = "1day 1s"
        deep = 0.30000000000000004
        [shadow]
        share = 0.0
        "#;
    for text in [GOOD, all, Config::template()] {
        let config = Config::from_toml(text).unwrap();
        let written = config.to_toml();
        assert_eq!(Config::from_toml(&written).expect(&written), config, "{written}");
        config.check().unwrap();
    }
}

#[test]
fn a_short_deadline_leaves_time_for_the_next_member() {
    let config = Config::from_toml(
        "[tier]\nmembers = [\"a\"]\ndeadline = \"1s\"\n[members.a]\nbackend = \"memory\"\n",
    )
    .unwrap();
    assert_eq!(config.members["a"].timeout, Duration::from_millis(500));
}

#[test]
fn a_log_in_memory_suits_members_in_memory() {
    let text = "[tier]\nmembers = [\"a\", \"b\"]\n[members.a]\nbackend = \"memory\"\n[members.b]\nbackend = \"lance\"\nuri = \"memory://x\"\n[log]\npath = \":memory:\"\n";
    let config = Config::from_toml(text).unwrap();
    assert!(config.log.is_in_memory());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.toml");
    std::fs::write(&file, text).unwrap();
    assert!(Config::load_with_env(&file, []).unwrap().log.is_in_memory());
}

#[test]
fn a_backend_that_is_not_compiled_in_names_its_feature() {
    let config = Config::from_toml(GOOD).unwrap();
    config.check_features(&["memory", "lance"]).unwrap();
    let remote = Config::from_toml(&GOOD.replace("data/lance", "s3://bucket/prefix")).unwrap();
    let text = remote.check_features(&["memory", "lance"]).unwrap_err().to_string();
    assert!(text.contains("add the cargo feature `lance-cloud`"), "{text}");
    remote.check_features(&["memory", "lance", "lance-cloud"]).unwrap();
    let text = config.check_features(&["memory"]).unwrap_err().to_string();
    assert!(text.contains("member `primary` wants backend `lance`: add the cargo feature `lance`"), "{text}");
}

#[test]
fn a_config_built_in_code_is_held_to_the_same_rules() {
    assert!(Config::default().check().is_err());
    let mut config = Config::from_toml(GOOD).unwrap();
    config.tier.members.push("nobody".into());
    config.breaker.failure_threshold = 0;
    let errors = config.check().unwrap_err();
    assert_eq!(errors.problems().len(), 2, "{errors}");
    assert!(errors.problems().iter().all(|p| p.origin == Origin::Default));
}

#[test]
fn every_key_is_documented() {
    let document = include_str!("../../../../docs/configure.md");
    let config = Config::from_toml(GOOD).unwrap().to_toml();
    let mut section = "";
    for line in config.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = if name.starts_with("members.") { "members.NAME" } else { name };
            continue;
        }
        let key = line.split(" =").next().unwrap();
        let whole = format!("`{section}.{key}`");
        assert!(
            document.contains(&whole) || document.contains(&format!(", `{key}` |")),
            "docs/configure.md lacks {whole}"
        );
    }
}

#[test]
fn the_template_and_the_example_are_one() {
    let config = Config::from_toml(Config::template()).unwrap();
    assert_eq!(config.tier.members, ["primary", "standby"]);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mainstay.toml");
    assert_eq!(std::fs::read_to_string(example).unwrap(), Config::template());
}

#[test]
fn the_defaults_in_the_template_are_the_defaults() {
    // Every commented-out key, taken out of its comment, changes nothing.
    let key = |line: &str| {
        let (key, value) = line.strip_prefix("# ")?.split_once(" = ")?;
        (key.chars().all(|c| c.is_ascii_lowercase() || c == '_')).then(|| format!("{key} = {value}"))
    };
    let mut taken = 0;
    let uncommented: Vec<String> = Config::template()
        .lines()
        .map(|line| match key(line) {
            Some(line) => {
                taken += 1;
                line
            }
            None => line.to_owned(),
        })
        .collect();
    assert!(taken >= 9, "{taken}");
    assert_eq!(
        Config::from_toml(&uncommented.join("\n")).unwrap(),
        Config::from_toml(Config::template()).unwrap()
    );
}

#[test]
fn no_text_makes_reading_panic() {
    for text in [
        "\0",
        "=",
        "[[tier]]",
        "[members]\nx = 1",
        "[members.x.y]\nz = 1",
        "tier.members.a = 1",
        "'''",
        "[tier]\nmembers = [[]]",
        "a.\"\".b = 1",
    ] {
        let _ = Config::from_toml(text).map_err(|errors| errors.to_string());
    }
}
