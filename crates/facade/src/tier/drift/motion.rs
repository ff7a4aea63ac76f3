//! The ids of a collection that the log touched after an LSN.

use std::collections::BTreeSet;

use mainstay_core::{CollectionName, Lsn, Op, PointId, Result};

use crate::log::{Log, scan};

/// What the log did to a collection from one LSN on.
#[derive(Clone, Debug)]
pub(super) struct Motion {
    name: CollectionName,
    to: Lsn,
    /// The ids that were touched.
    pub ids: BTreeSet<PointId>,
    /// Whether the collection was created or dropped.
    pub collection: bool,
}

impl Motion {
    /// Nothing yet, after this entry.
    pub fn after(name: &CollectionName, lsn: Lsn) -> Self {
        Self { name: name.clone(), to: lsn, ids: BTreeSet::new(), collection: false }
    }

    /// Takes the entries up to `end` into account, for the ids that are of interest.
    ///
    /// # Errors
    /// `LogGap` if the log was cut meanwhile, `Corrupt` if it is damaged.
    pub async fn read_to(
        &mut self,
        log: &dyn Log,
        end: Lsn,
        of_interest: &(dyn Fn(PointId) -> bool + Sync),
    ) -> Result<()> {
        let after = self.to;
        scan(log, after, end, |entry| {
            self.to = entry.lsn;
            self.take(&entry.op, of_interest);
        })
        .await
        .map(drop)
    }

    fn take(&mut self, op: &Op, of_interest: &(dyn Fn(PointId) -> bool + Sync)) {
        if *op.collection() != self.name {
            return;
        }
        self.collection |= op.is_of_collections();
        self.ids.extend(op.ids().filter(|id| of_interest(*id)));
    }
}
