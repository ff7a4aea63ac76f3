//! What stands for snapshots in a build without them: nothing, which the compiler knows.

use std::sync::Arc;

use mainstay_core::{Lsn, Position, Result};
use tokio::sync::watch;

use crate::config::SnapshotsConfig;
use crate::log::Log;
use crate::tier::Shared;
use crate::tier::member::Member;
use crate::tier::status::{SnapshotReport, SnapshotsStatus};

pub(crate) enum Snapshots {}

impl Snapshots {
    /// A config that wants them was refused before.
    pub(crate) fn new(_: &SnapshotsConfig, _: &Arc<dyn Log>) -> Option<Arc<Self>> {
        None
    }

    pub(crate) fn keeps(&self) -> Lsn {
        match *self {}
    }

    pub(crate) fn status(&self) -> SnapshotsStatus {
        match *self {}
    }

    pub(crate) async fn are_worth_it(&self) -> bool {
        match *self {}
    }

    pub(crate) async fn load_into(&self, _: &Member, _: &dyn Log, _: Lsn) -> Result<Option<Position>> {
        match *self {}
    }
}

pub(crate) async fn run(_: Arc<Shared>, snapshots: Arc<Snapshots>, _: watch::Receiver<bool>) {
    match *snapshots {}
}

pub(crate) async fn run_archive(snapshots: Arc<Snapshots>, _: watch::Receiver<bool>) {
    match *snapshots {}
}

pub(crate) async fn make(_: &Shared, snapshots: &Snapshots) -> Result<SnapshotReport> {
    match *snapshots {}
}
