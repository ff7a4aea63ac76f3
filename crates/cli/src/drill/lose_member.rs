//! Taking a member's directory away and giving it back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mainstay::{Config, Error, ErrorKind, Result, Tier};

use super::load::LoadReport;

/// The fault: a member's directory is gone for a while.
#[derive(Clone, Debug)]
pub struct LoseMember {
    directory: PathBuf,
    aside: PathBuf,
    outage: Duration,
    patience: Duration,
}

/// One round of the fault.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// When the directory was taken.
    pub lost_at: Instant,
    /// When it, or an empty one, was given back.
    pub back_at: Instant,
    /// How long the member took to catch up after that.
    pub catch_up: Duration,
}

impl LoseMember {
    /// The fault for a member of this config.
    ///
    /// # Errors
    /// `Invalid` if there is no such member or it has no directory on this machine.
    pub fn of(config: &Config, member: &str) -> Result<Self> {
        let Some(found) = config.members.get(member) else {
            let known: Vec<_> = config.tier.members.iter().map(String::as_str).collect();
            return Err(Error::invalid(format!(
                "there is no member `{member}`; the tier has {}",
                known.join(", ")
            )));
        };
        let directory = found.backend.directory().ok_or_else(|| {
            Error::invalid(format!(
                "member `{member}` ({}) has no directory that could be taken away; drill one that has",
                found.backend.name()
            ))
        })?;
        Ok(Self::at(&directory))
    }

    /// The fault for a directory.
    pub fn at(directory: &Path) -> Self {
        let mut aside = directory.as_os_str().to_owned();
        aside.push(".taken-away");
        Self {
            directory: directory.to_owned(),
            aside: aside.into(),
            outage: Duration::from_secs(5),
            patience: Duration::from_secs(120),
        }
    }

    /// The same fault with another time that the directory is gone (5 s by default), and that catching up may
    /// take (2 minutes by default).
    #[must_use]
    pub fn lasting(mut self, outage: Duration, patience: Duration) -> Self {
        (self.outage, self.patience) = (outage, patience);
        self
    }

    /// How long the directory is gone.
    pub fn outage(&self) -> Duration {
        self.outage
    }

    /// One round: takes the directory away, gives it (or an empty one) back, and waits until every member
    /// has caught up.
    ///
    /// # Errors
    /// `Unavailable` if the directory cannot be moved, `Timeout` if a member does not catch up.
    pub async fn round(&self, tier: &Tier, give_back_empty: bool) -> Result<Round> {
        let lost_at = Instant::now();
        self.rename(&self.directory, &self.aside)?;
        tokio::time::sleep(self.outage).await;
        self.clear_debris()?;
        if give_back_empty {
            self.io(std::fs::create_dir(&self.directory))?;
        } else {
            self.rename(&self.aside, &self.directory)?;
        }
        let back_at = Instant::now();
        tier.wait_caught_up(self.patience).await?;
        let catch_up = back_at.elapsed();
        super::serve_again(tier)?;
        if give_back_empty {
            self.io(std::fs::remove_dir_all(&self.aside))?;
        }
        Ok(Round { lost_at, back_at, catch_up })
    }

    /// A store may have put files where its directory was, in the moment it vanished.
    fn clear_debris(&self) -> Result<()> {
        if self.directory.exists() { self.io(std::fs::remove_dir_all(&self.directory)) } else { Ok(()) }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.io(std::fs::rename(from, to))
    }

    fn io(&self, result: std::io::Result<()>) -> Result<()> {
        result.map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                format!("the drill cannot move {}: {error}", self.directory.display()),
            )
            .with_source(error)
        })
    }
}

impl Round {
    /// How long after the loss a standby first answered a search, beyond what a search took before it; `None` if no
    /// standby had to.
    pub fn first_answer(&self, report: &LoadReport, before: Instant) -> Option<Duration> {
        let first = report.latencies.first_by_standby(self.lost_at, self.back_at + self.catch_up)?;
        Some(first.saturating_sub(self.usual(report, before)))
    }

    /// What the worst search of the outage took beyond the median before it.
    pub fn added_latency(&self, report: &LoadReport, before: Instant) -> Duration {
        let worst = report.latencies.worst(self.lost_at, self.back_at).unwrap_or_default();
        worst.saturating_sub(self.usual(report, before))
    }

    /// The median of the searches from a moment until the loss.
    fn usual(&self, report: &LoadReport, from: Instant) -> Duration {
        report.latencies.median(from, self.lost_at).unwrap_or_default()
    }
}
