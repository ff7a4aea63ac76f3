//! Whether an object store refuses what it must refuse.
//!
//! Both the record and LanceDB's commits are put under a condition. A store that takes the condition and
//! ignores it would lose commits in silence, so it is tried out before anything is believed.

use mainstay_core::{Error, ErrorKind, Result};
use object_store::path::Path;
use object_store::{Error as ObjectError, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};
use uuid::Uuid;

use crate::error;

/// Probes have names of their own, so that one left behind by a crash harms nobody.
pub(crate) const PROBE_PREFIX: &str = "mainstay-probe-";

/// Tries out both conditions under a prefix.
///
/// # Errors
/// `Unsupported` if the store does not keep them, or whatever it answers instead.
pub(crate) async fn probe(store: &dyn ObjectStore, prefix: &Path) -> Result<()> {
    let path = prefix.clone().join(format!("{PROBE_PREFIX}{}", Uuid::new_v4()));
    let what = "trying out the conditional writes of the object store";
    let put = store.put_opts(&path, PutPayload::from_static(b"1"), PutMode::Create.into());
    let first = put.await.map_err(error::object(what))?.into();
    let kept = conditions(store, &path, first).await;
    // One that stays behind is removed at a later opening.
    if let Err(e) = store.delete(&path).await {
        tracing::debug!(error = %e, "the probe stays for now");
    }
    kept
}

async fn conditions(store: &dyn ObjectStore, path: &Path, first: UpdateVersion) -> Result<()> {
    let put = |text: &'static str, mode: PutMode| {
        let payload = PutPayload::from_static(text.as_bytes());
        store.put_opts(path, payload, mode.into())
    };
    let what = "trying out the conditional writes of the object store";
    match put("2", PutMode::Create).await {
        Err(ObjectError::AlreadyExists { .. } | ObjectError::Precondition { .. }) => {}
        Err(e) => return Err(error::object(what)(e)),
        Ok(_) => return Err(ignored("writes an object that exists although it was told not to")),
    }
    put("3", PutMode::Update(first.clone())).await.map_err(error::object(what))?;
    match put("4", PutMode::Update(first)).await {
        Err(ObjectError::AlreadyExists { .. } | ObjectError::Precondition { .. }) => Ok(()),
        Err(e) => Err(error::object(what)(e)),
        Ok(_) => Err(ignored("replaces an object that was changed meanwhile although it was told not to")),
    }
}

fn ignored(what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "the object store {what}, so two writers could overwrite each other; use one that keeps If-None-Match \
             and If-Match"
        ),
    )
}
