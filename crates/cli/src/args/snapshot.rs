//! What can be typed after `mainstay snapshot`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Snapshots of the tier, where `snapshots.dir` of the config says.
#[derive(Subcommand)]
pub enum SnapshotCommand {
    /// Make one now, by the process that holds the tier, or by opening it.
    Create,
    /// List them, the newest first.
    List,
    /// Show one with its collections.
    Show {
        /// Its id; `latest` is the newest.
        #[arg(default_value = "latest")]
        id: String,
    },
    /// Read everything that snapshots are made of and check it; exit code 5 if anything is damaged.
    Verify {
        /// Their ids; the newest if they are left out.
        ids: Vec<String>,
        /// All of them.
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Load them into memory too, and find points by their own vectors there (cargo feature `memory`).
        #[arg(long)]
        deep: bool,
    },
    /// Make the tier what it was, from the newest good snapshot and the archived log; no process may have it open. Its
    /// members are loaded when it is opened next.
    Restore(RestoreArgs),
    /// Say what changed between two snapshots, or between one and what a store holds now; exit code 3 if anything did.
    Diff {
        /// The first snapshot; `latest` is the newest.
        a: String,
        /// The second snapshot.
        #[arg(required_unless_present = "store")]
        b: Option<String>,
        /// A member or place, written as for `copy`, instead of a second snapshot; no tier may use it meanwhile.
        #[arg(long, conflicts_with = "b")]
        store: Option<String>,
    },
    /// Write a snapshot as a JSON backup file of version 2.0 (cargo feature `memory`).
    Export {
        /// The file, which must not be there.
        file: PathBuf,
        /// The snapshot; `latest` is the newest.
        #[arg(long, default_value = "latest")]
        snapshot: String,
    },
    /// Write the points of a JSON backup file of version 1.0 or 2.0 into the tier, after six checks of it.
    Import {
        /// The file.
        file: PathBuf,
        /// Write into collections that are there, if they have the same vectors.
        #[arg(long)]
        merge: bool,
    },
    /// Remove the snapshots that the rules of the config do not keep, and what only they needed. A tier that is open
    /// does so by itself.
    Prune {
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Arguments of `snapshot restore`.
#[derive(Args)]
pub struct RestoreArgs {
    /// From this snapshot; the newest that is good and fits if it is left out.
    pub id: Option<String>,
    /// As it was after this entry of the log.
    #[arg(long, value_name = "LSN", conflicts_with = "until_time")]
    pub until_lsn: Option<u64>,
    /// As it was at this time, such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub until_time: Option<String>,
    /// Put it in the place of the log that the tier has, which is kept beside it under another name.
    #[arg(long)]
    pub replace: bool,
    /// Only say what would be restored.
    #[arg(long)]
    pub dry_run: bool,
    /// Load this member or place by itself instead, written as for `copy`; no tier may use it meanwhile.
    #[arg(long, value_name = "STORE")]
    pub into: Option<String>,
    /// With `--into`, load only this collection; once for each. No tier takes the store for a member that holds
    /// everything.
    #[arg(long = "collection", value_name = "NAME")]
    pub collections: Vec<String>,
}

impl RestoreArgs {
    /// What is wrong with arguments that clap lets through one by one.
    pub fn problem(&self) -> Option<&'static str> {
        (!self.collections.is_empty() && self.into.is_none()).then_some(
            "--collection needs --into STORE: a tier is restored whole, and some of its collections go into a store by \
             itself",
        )
    }
}

/// No id twice.
pub fn unique(ids: &[String]) -> BTreeSet<&str> {
    ids.iter().map(String::as_str).collect()
}
