//! Work that would hold up other tasks: packing, hashing, files.

use std::thread::Builder;

use mainstay_core::{Error, ErrorKind, Result};
use tokio::task::spawn_blocking;

/// Runs work that would hold up other tasks; a panic in it is an error here.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(broke_off().with_source(error)))
}

fn broke_off() -> Error {
    Error::new(ErrorKind::Internal, "work on a snapshot broke off")
}

/// Whose turn it is when the processors are wanted for something else too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Everybody's, in turn.
    Normal,
    /// Everybody else's first.
    Low,
}

impl Priority {
    /// Runs work that needs a processor and nothing else: with low priority, whoever waits for a lock that it holds waits
    /// for everybody. A panic in it is an error here.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self == Self::Normal {
            return blocking(work).await;
        }
        // A thread of its own, because its priority cannot be raised again; another one waits for it, as for all work.
        blocking(move || {
            let thread = Builder::new().name("mainstay-packing".to_owned()).spawn(move || {
                lower_priority();
                work()
            });
            let thread = thread.map_err(|error| broke_off().with_source(error))?;
            thread.join().unwrap_or_else(|_| Err(broke_off()))
        })
        .await
    }
}

/// Of this thread. Elsewhere than on Linux it would be that of the process, and stays as it is.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(YIELDING) {
        tracing::debug!(%error, "the priority of a thread stays as it is");
    }
}

/// What is added to `nice`: beside a busy thread it leaves a tenth of a processor. With less, a busy machine would take hours
/// for a snapshot, and searches waited no shorter.
#[cfg(target_os = "linux")]
const YIELDING: i32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_next_work_is_done() {
        for priority in [Priority::Normal, Priority::Low] {
            let error = priority.run::<()>(|| panic!("a test")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert_eq!(priority.run(|| Ok(1)).await.unwrap(), 1);
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn low_priority_is_that_of_the_work_alone() {
        let of = async |priority: Priority| {
            let nice = || rustix::process::nice(0).map_err(|error| broke_off().with_source(error));
            priority.run(nice).await.unwrap()
        };
        let before = of(Priority::Normal).await;
        assert_eq!(of(Priority::Low).await, (before + YIELDING).min(19));
        assert_eq!(of(Priority::Normal).await, before);
    }
}
