//! The limits that a guard sets.

use std::time::Duration;

use crate::breaker::BreakerOptions;
use crate::error::{Error, Result};

/// Longest `timeout` and `write_timeout`.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Most calls under way, and most calls that wait.
pub const MAX_CALLS: usize = 1_000_000;

/// The limits that a guard sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardOptions {
    /// How long a read, a `position` or a `ping` may take.
    pub timeout: Duration,
    /// How long an `apply`, a `flush`, a step of a `restore` or a `close` may take.
    pub write_timeout: Duration,
    /// How many reads may be under way at once.
    pub max_concurrent: usize,
    /// How many more reads may wait for their turn.
    pub max_queued: usize,
    /// The breaker.
    pub breaker: BreakerOptions,
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(30),
            max_concurrent: 64,
            max_queued: 256,
            breaker: BreakerOptions::default(),
        }
    }
}

impl GuardOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// `Invalid` with the option that is out of its range.
    pub fn check(&self) -> Result<()> {
        for (name, timeout) in [("timeout", self.timeout), ("write_timeout", self.write_timeout)] {
            if !(Duration::from_millis(1)..=MAX_TIMEOUT).contains(&timeout) {
                return Err(Error::invalid(format!("{name} {timeout:?} is outside 1 ms to {MAX_TIMEOUT:?}")));
            }
        }
        if !(1..=MAX_CALLS).contains(&self.max_concurrent) {
            return Err(Error::invalid(format!(
                "max_concurrent {} is outside 1 to {MAX_CALLS}",
                self.max_concurrent
            )));
        }
        if self.max_queued > MAX_CALLS {
            return Err(Error::invalid(format!("max_queued {} is above {MAX_CALLS}", self.max_queued)));
        }
        self.breaker.check()
    }
}
