//! How a tier ends.

use mainstay_core::{Error, ErrorKind, Result};
use tokio::time::timeout;

use crate::tier::Tier;

impl Tier {
    /// Ends the tier: refuses new writes, lets appliers finish what they are at, flushes and closes the
    /// stores and the log. What a member had not applied is in the log and follows at the next start.
    ///
    /// # Errors
    /// `Timeout` if work did not end in time (it is aborted, and nothing acked is lost), or the log did not; whatever
    /// closing the log runs into.
    pub async fn close(&self) -> Result<()> {
        let shared = self.shared();
        let _ = self.owner.closing.send(true);
        let mut tasks = std::mem::take(&mut *self.owner.tasks.lock());
        let mut owned = std::mem::take(&mut *shared.owned.lock());
        let ended = timeout(shared.options.close_timeout, async {
            while owned.join_next().await.is_some() {}
            while tasks.join_next().await.is_some() {}
        });
        let ended = ended.await.is_ok();
        drop((tasks, owned));
        // A time of its own: a member that hangs must not cost the log its last sync.
        let closed = timeout(shared.options.close_timeout, shared.log.close()).await;
        closed.unwrap_or_else(|_| {
            let text = "the log did not close in time, its disk may hang; what it synced is safe, and its directory stays \
                        taken until the disk answers or this process ends";
            Err(Error::new(ErrorKind::Timeout, text))
        })?;
        if ended {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Timeout,
            "a member did not end its work in time and was abandoned; the log has the rest",
        ))
    }
}
