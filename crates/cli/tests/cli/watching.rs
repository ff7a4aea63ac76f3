//! What a tier tells whoever looks at it, and who may give it orders.

use serde_json::{Value, json};

use crate::shell::{Shell, TIER, documented, keys};

#[test]
fn a_status_tells_health_breakers_and_times() {
    let shell = Shell::new();
    let status = shell.json(&["status"]);
    assert_eq!(status["health"]["status"], "healthy", "{status}");
    let components = status["health"]["components"].as_array().unwrap();
    let names: Vec<_> = components.iter().map(|c| (c["kind"].as_str(), c["name"].as_str())).collect();
    assert_eq!(names, [(Some("member"), Some("only")), (Some("log"), Some("log"))]);
    assert!(components[0]["latency"]["mean_ms"].as_f64().unwrap() > 0.0, "{status}");
    let breaker = &status["members"][0]["breaker_metrics"];
    assert_eq!((&breaker["availability"], &breaker["rejected"]), (&json!(1.0), &json!(0)));
    let text = shell.ok(&["status"]);
    for word in ["healthy: every component is healthy", "breaker", "closed", "100.0 %", "p99"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
}

#[test]
fn a_status_that_is_watched_is_a_line_each_time_where_there_is_no_terminal() {
    let shell = Shell::new();
    let lines = shell.first_lines(3, &["status", "--watch", "100ms", "--format", "json"]);
    let known = documented("status").unwrap();
    for line in lines {
        let value: Value = serde_json::from_str(&line).unwrap();
        assert!(value["events"].is_array() && value["members"][0]["name"] == "only", "{line}");
        assert!(keys(&value).is_subset(&known), "{line}");
    }
    for line in shell.first_lines(2, &["status", "--watch"]).iter().filter(|line| line.contains("level")) {
        assert!(line.contains(" · level ") && !line.contains('\u{1b}'), "{line:?}");
    }
    for wrong in ["0s", "2h", "often"] {
        shell.fails(2, &["status", "--watch", wrong]);
    }
    // The log is free again whoever ended the watching.
    shell.ok(&["status"]);
}

#[test]
fn a_page_of_metrics_needs_its_feature_and_a_free_port() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let shell =
        Shell::with_config(&format!("{TIER}[log]\npath = \"data/log\"\n[metrics]\nlisten = \"{address}\"\n"));
    let (code, text) = if cfg!(feature = "prometheus") {
        (4, address.to_string())
    } else {
        (2, "cargo feature `prometheus`".to_owned())
    };
    let error = shell.fails(code, &["status"]);
    assert!(error["message"].as_str().unwrap().contains(&text), "{error}");
}

#[test]
fn another_process_sees_and_orders_the_tier_that_is_held() {
    let two = "[tier]\nmembers = [\"first\", \"second\"]\n\
         [members.first]\nbackend = \"memory\"\n[members.second]\nbackend = \"memory\"\n[log]\npath = \"data/log\"\n";
    let shell = Shell::with_config(two);
    assert_eq!(shell.fails(4, &["failover", "second"])["kind"], "unavailable", "nobody holds it");
    let mut holder = shell.lines(&["events", "--format", "json"]);
    // An order opens no tier, so it is answered once the holder is there.
    shell.until(|shell| shell.run(&["failback", "second"]).succeeded().then_some(()));
    let status = shell.json(&["status"]);
    assert_eq!(status["active"], "first", "{status}");
    assert!(keys(&status).is_subset(&documented("status").unwrap()), "{status}");
    assert!(shell.ok(&["status"]).contains("active first"));

    assert_eq!(shell.json(&["failover", "second"])["active"], "second");
    assert_eq!(holder.next_of("failover")["to"], "second");
    assert_eq!(shell.json(&["failback", "first"])["active"], "first");
    assert_eq!(holder.next_of("failback")["to"], "first");
    let ordered = shell.json(&["quarantine", "first", "--reason", "its disk is changed"]);
    assert_eq!((&ordered["active"], &ordered["level"]), (&json!("second"), &json!(3)));
    let event = holder.next_of("state");
    assert!(event["reason"].as_str().unwrap().contains("its disk is changed"), "{event}");
    assert_eq!(shell.fails(4, &["quarantine", "second"])["kind"], "unavailable", "somebody has to serve");
    shell.ok(&["release", "first", "--reload"]);
    assert_eq!(holder.next_of("state")["to"], "down");
    assert_eq!(holder.next_of("state")["to"], "bootstrapping");
    assert_eq!(holder.next_of("state")["to"], "live");
    for (args, word) in [
        (["failover", "third"], "first, second"),
        (["failback", "third"], "first, second"),
        (["release", "second"], "not quarantined"),
    ] {
        let error = shell.fails(2, &args);
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
    // Writing takes the log, which is held; looking does not.
    assert_eq!(shell.fails(4, &["count", "docs"])["kind"], "unavailable");
    drop(holder);
    shell.ok(&["status"]);
}
