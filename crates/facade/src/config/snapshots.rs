//! Where snapshots are kept, how often they are made, and which of them stay.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::problem::Problem;
use super::read::Section;
use super::storage::{self, StorageConfig};
use super::write::{Text, duration_text, quoted, size_text};

/// Making one reads every id; beyond a month nobody takes it for a backup.
const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_secs(31 * 24 * 3_600);
/// What may be lost with the machine; more often than this is a file for nearly each write.
const ARCHIVE_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
const MAX_KEEP: u32 = 10_000;

/// When snapshots are made that nobody asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SaveMode {
    /// Every `interval`.
    #[default]
    Periodic,
    /// As soon as the log has entries that the newest one does not hold, one after the other.
    Immediate,
    /// Never: all are asked for.
    Manual,
}

impl SaveMode {
    const WORDS: [(&'static str, Self); 3] =
        [("periodic", Self::Periodic), ("immediate", Self::Immediate), ("manual", Self::Manual)];

    /// The word in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Periodic => "periodic",
            Self::Immediate => "immediate",
            Self::Manual => "manual",
        }
    }
}

/// Snapshots, and the log between them.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotsConfig {
    /// A directory, or the URL of an object store (`s3://`, `gs://`, `az://`); none for no snapshots.
    pub dir: Option<String>,
    /// How an object store is reached.
    pub storage: StorageConfig,
    /// When they are made by themselves; periodically. The log between them is archived in every mode.
    pub save: SaveMode,
    /// How long after one snapshot was begun the next one is; 300 s, at least 30 s. None is made while the first member
    /// does not serve. Of the periodic mode alone.
    pub interval: Duration,
    /// `mainstay index` asks for a snapshot after so many files; 100, and 0 for never. It never does in the manual mode.
    pub every_files: u32,
    /// How many of the newest stay, at least two; 7.
    pub keep: u32,
    /// Of how many of the last hours the newest stays; 0.
    pub hourly: u32,
    /// Of how many of the last days (UTC) the newest stays; 0.
    pub daily: u32,
    /// Of how many of the last weeks (UTC) the newest stays; 0.
    pub weekly: u32,
    /// How long a write is at most in the log alone, before it is archived beside the snapshots too: what may be lost
    /// when the machine is. 1 s.
    pub archive_interval: Duration,
    /// Most bytes of points read in a second for a snapshot. 64 MiB: a share of what a store can read, so that searches
    /// do not wait (on Linux what is read is packed with low priority); a million points of 384 dimensions take half a
    /// minute, and longer beside much work.
    pub max_rate: u64,
    /// Whether the search graphs of a memory member are saved with its points, so that a restore need not build them: about
    /// a tenth more bytes, written again when one point in 50 changed. Yes.
    pub graphs: bool,
}

impl Default for SnapshotsConfig {
    fn default() -> Self {
        Self {
            dir: None,
            storage: StorageConfig::default(),
            save: SaveMode::Periodic,
            interval: Duration::from_secs(300),
            every_files: 100,
            keep: 7,
            hourly: 0,
            daily: 0,
            weekly: 0,
            archive_interval: Duration::from_secs(1),
            max_rate: 64 << 20,
            graphs: true,
        }
    }
}

impl SnapshotsConfig {
    /// After how many changed files a command that writes many asks for a snapshot; 0 for never.
    pub fn asked_after(&self) -> u32 {
        match (&self.dir, self.save) {
            (None, _) | (_, SaveMode::Manual) => 0,
            (Some(_), SaveMode::Periodic | SaveMode::Immediate) => self.every_files,
        }
    }

    /// What is wrong if snapshots are wanted and not compiled in.
    pub(super) fn check_feature(&self) -> Option<Problem> {
        let dir = self.dir.as_deref()?;
        let (there, feature) = match storage::is_object_store(dir) {
            false => (cfg!(feature = "snapshots"), "snapshots"),
            true => (cfg!(feature = "snapshots-cloud"), "snapshots-cloud"),
        };
        (!there).then(|| {
            let text = format!("snapshots there are not compiled in: add the cargo feature `{feature}`");
            Problem::new("snapshots.dir", text)
        })
    }

    /// Takes a relative path from this directory.
    pub(super) fn resolve_path(&mut self, base: &Path) {
        if let Some(dir) = self.dir.as_mut().filter(|dir| !super::check::has_scheme(dir)) {
            *dir = base.join(&dir).to_string_lossy().into_owned();
        }
    }
}

pub(super) fn read(section: &mut Section<'_>, snapshots: &mut SnapshotsConfig) {
    snapshots.dir = section.text("dir");
    snapshots.storage = storage::read(section.section(storage::SECTION));
    section.word("save", &SaveMode::WORDS, &mut snapshots.save);
    section.duration("interval", &mut snapshots.interval);
    section.count("every_files", &mut snapshots.every_files);
    section.count("keep", &mut snapshots.keep);
    section.count("hourly", &mut snapshots.hourly);
    section.count("daily", &mut snapshots.daily);
    section.count("weekly", &mut snapshots.weekly);
    section.duration("archive_interval", &mut snapshots.archive_interval);
    section.size("max_rate", &mut snapshots.max_rate);
    section.flag("graphs", &mut snapshots.graphs);
}

pub(super) fn write(snapshots: &SnapshotsConfig, out: &mut Text) {
    if let Some(dir) = &snapshots.dir {
        out.key("dir", quoted(dir));
    }
    out.key("save", quoted(snapshots.save.as_str()));
    out.key("interval", quoted(&duration_text(snapshots.interval)));
    out.key("every_files", snapshots.every_files);
    out.key("keep", snapshots.keep);
    out.key("hourly", snapshots.hourly);
    out.key("daily", snapshots.daily);
    out.key("weekly", snapshots.weekly);
    out.key("archive_interval", quoted(&duration_text(snapshots.archive_interval)));
    out.key("max_rate", quoted(&size_text(snapshots.max_rate)));
    out.key("graphs", snapshots.graphs);
    storage::write("snapshots", &snapshots.storage, out);
}

/// What is out of its range.
pub(super) fn check(snapshots: &SnapshotsConfig) -> Vec<Problem> {
    let key = |key: &str| format!("snapshots.{key}");
    let mut problems = match &snapshots.dir {
        Some(dir) if dir.trim().is_empty() => {
            vec![
                Problem::new(key("dir"), "names no place").hint("write for example dir = \"data/snapshots\""),
            ]
        }
        dir => storage::check(&key, "dir", dir.as_deref().unwrap_or_default(), &snapshots.storage),
    };
    let mut within = |name: &str, value: Duration, range: RangeInclusive<Duration>| {
        if !range.contains(&value) {
            let (low, high) = (duration_text(*range.start()), duration_text(*range.end()));
            let text = format!("{} is outside {low} to {high}", duration_text(value));
            problems.push(Problem::new(key(name), text));
        }
    };
    within("interval", snapshots.interval, INTERVALS);
    within("archive_interval", snapshots.archive_interval, ARCHIVE_INTERVALS);
    let keeps = [
        ("keep", snapshots.keep, 2),
        ("hourly", snapshots.hourly, 0),
        ("daily", snapshots.daily, 0),
        ("weekly", snapshots.weekly, 0),
    ];
    for (name, value, least) in keeps {
        if !(least..=MAX_KEEP).contains(&value) {
            problems.push(Problem::new(key(name), format!("{value} is outside {least} to {MAX_KEEP}")));
        }
    }
    if snapshots.max_rate < 64 << 10 {
        let text = format!("{} a second is below 64KiB", size_text(snapshots.max_rate));
        problems.push(Problem::new(key("max_rate"), text));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::SaveMode;

    const TIER: &str = "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"memory\"\n[snapshots]\n";

    #[test]
    fn snapshots_are_off_or_have_a_place_and_read_back() {
        let off = Config::from_toml(TIER).unwrap();
        assert_eq!(off.snapshots.dir, None);
        let text = format!(
            "{TIER}dir = \"s3://bucket/x\"\nkeep = 3\n[snapshots.storage_options]\nregion = \"eu-1\"\n"
        );
        let config = Config::from_toml(&text).unwrap();
        assert_eq!((config.snapshots.keep, config.snapshots.dir.as_deref()), (3, Some("s3://bucket/x")));
        assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn when_they_are_made_is_one_of_three_words() {
        for (word, mode, asked) in [
            ("periodic", SaveMode::Periodic, 5),
            ("immediate", SaveMode::Immediate, 5),
            ("manual", SaveMode::Manual, 0),
        ] {
            let text = format!("{TIER}dir = \"x\"\nevery_files = 5\nsave = \"{word}\"\n");
            let config = Config::from_toml(&text).unwrap();
            assert_eq!((config.snapshots.save, config.snapshots.asked_after()), (mode, asked));
            assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
        }
        assert_eq!(Config::from_toml(TIER).unwrap().snapshots.save, SaveMode::Periodic);
        let error = Config::from_toml(&format!("{TIER}save = \"always\"\n")).unwrap_err().to_string();
        for part in ["snapshots.save", "\"periodic\", \"immediate\", \"manual\"", "\"always\""] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        for (line, key) in [
            ("dir = \"\"", "snapshots.dir"),
            ("dir = \"ftp://x/y\"", "snapshots.dir"),
            ("dir = \"s3://user:secret@bucket/x\"", "snapshots.dir"),
            ("dir = \"x\"\n[snapshots.storage_options]\nregion = \"x\"", "snapshots.storage_options"),
            ("interval = \"5s\"", "snapshots.interval"),
            ("archive_interval = \"1ms\"", "snapshots.archive_interval"),
            ("keep = 1", "snapshots.keep"),
            ("max_rate = \"1KiB\"", "snapshots.max_rate"),
        ] {
            let text = Config::from_toml(&format!("{TIER}{line}\n")).unwrap_err().to_string();
            assert!(text.contains(key) && !text.contains("secret@"), "{line}: {text}");
        }
    }

    #[test]
    fn snapshots_that_are_not_compiled_in_are_refused_with_the_feature() {
        for (dir, there, feature) in [
            ("x", cfg!(feature = "snapshots"), "`snapshots`"),
            ("s3://b/x", cfg!(feature = "snapshots-cloud"), "`snapshots-cloud`"),
        ] {
            let config = Config::from_toml(&format!("{TIER}dir = \"{dir}\"\n")).unwrap();
            match config.check_features(&["memory"]) {
                Ok(()) => assert!(there),
                Err(error) => assert!(!there && error.to_string().contains(feature), "{error}"),
            }
        }
    }
}
