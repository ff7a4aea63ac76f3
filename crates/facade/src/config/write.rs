//! Writes a config as TOML that reads back as the same config.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::{BackendConfig, Config, drift, qdrant, shadow, snapshots, storage};

impl Config {
    /// The effective config with every key, as TOML that [`from_toml`](Self::from_toml) reads
    /// back as the same config.
    pub fn to_toml(&self) -> String {
        let mut out = Text::default();
        out.section("tier");
        let members: Vec<String> = self.tier.members.iter().map(|name| quoted(name)).collect();
        out.key("members", format!("[{}]", members.join(", ")));
        out.key("ack", quoted(self.tier.ack.as_str()));
        out.key("deadline", quoted(&duration_text(self.tier.deadline)));
        out.key("read", quoted(self.tier.read.as_str()));
        out.key("hedge_after", quoted(&self.tier.hedge_after.text()));
        out.key("max_batch_bytes", quoted(&size_text(self.tier.max_batch_bytes)));
        out.key("max_batch_points", self.tier.max_batch_points);
        for (name, member) in &self.members {
            out.section(&format!("members.{name}"));
            out.key("backend", quoted(member.backend.name()));
            match &member.backend {
                BackendConfig::Memory(memory) => {
                    out.key("max_memory", quoted(&size_text(memory.max_memory)));
                    out.key("when_full", quoted(memory.when_full.as_str()));
                    out.key("allow_red_zone", memory.allow_red_zone);
                    out.key("quantization", quoted(memory.quantization.as_str()));
                    out.key("tombstone_ratio", format!("{:?}", memory.tombstone_ratio));
                }
                BackendConfig::Lance(lance) => {
                    out.key("uri", quoted(&lance.uri));
                    out.key("index_threshold_rows", lance.index_threshold_rows);
                    out.key("keep_versions", quoted(&duration_text(lance.keep_versions)));
                }
                BackendConfig::Qdrant(qdrant) => qdrant::write(qdrant, &mut out),
            }
            out.key("timeout", quoted(&duration_text(member.timeout)));
            out.key("write_timeout", quoted(&duration_text(member.write_timeout)));
            out.key("max_concurrent", member.max_concurrent);
            if let BackendConfig::Lance(lance) = &member.backend {
                storage::write(&format!("members.{name}"), &lance.storage, &mut out);
            }
        }
        out.section("log");
        out.key("path", quoted(&self.log.path.to_string_lossy()));
        out.key("sync", quoted(self.log.sync.as_str()));
        out.key("sync_interval", quoted(&duration_text(self.log.sync_interval)));
        out.key("max_bytes", quoted(&size_text(self.log.max_bytes)));
        out.section("breaker");
        out.key("failure_threshold", self.breaker.failure_threshold);
        out.key("success_threshold", self.breaker.success_threshold);
        out.key("reset_timeout", quoted(&duration_text(self.breaker.reset_timeout)));
        out.section("retry");
        out.key("max_retries", self.retry.max_retries);
        out.key("first_delay", quoted(&duration_text(self.retry.first_delay)));
        out.key("longest_delay", quoted(&duration_text(self.retry.longest_delay)));
        out.key("budget", format!("{:?}", self.retry.budget));
        out.section("failover");
        out.key("check_interval", quoted(&duration_text(self.failover.check_interval)));
        out.key("auto_restore", self.failover.auto_restore);
        out.key("restore_delay", quoted(&duration_text(self.failover.restore_delay)));
        out.section("metrics");
        out.key("listen", quoted(&self.metrics.text()));
        out.section("drift");
        drift::write(&self.drift, &mut out);
        out.section("shadow");
        shadow::write(&self.shadow, &mut out);
        out.section("snapshots");
        snapshots::write(&self.snapshots, &mut out);
        out.0
    }
}

/// TOML as it grows.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn section(&mut self, name: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{gap}[{name}]");
    }

    pub(super) fn key(&mut self, key: &str, value: impl Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A duration with its units, to the nanosecond.
pub(super) fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A size in the largest binary unit that shows it exactly.
pub(super) fn size_text(size: u64) -> String {
    let units = [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = units.iter().find(|(bits, _)| size != 0 && size.is_multiple_of(1 << bits));
    exact.map_or_else(|| format!("{size}B"), |(bits, unit)| format!("{}{unit}", size >> bits))
}
