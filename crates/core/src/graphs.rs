//! The search graphs of a store, kept beside its points so that a load need not build them again.

use async_trait::async_trait;

use crate::{CollectionRef, CollectionSpec, Context, Result};

/// Parts of saved graphs, one after the other; each some megabytes at most. Only the kind of store that wrote them knows
/// what is in them.
pub type GraphParts = Box<dyn Iterator<Item = Result<Vec<u8>>> + Send>;

/// Most bytes that a part has.
pub const MAX_PART_BYTES: usize = 64 << 20;

/// Graphs on their way out of a store.
pub struct SavedGraphs {
    /// What they are made of.
    pub parameters: String,
    /// Asking for the next part blocks the thread for some milliseconds; writes go on between. A part is an error if the
    /// graphs were built anew since the one before.
    pub parts: GraphParts,
}

/// A store whose graphs can be saved and loaded. Graphs say which points are near each other and nothing about what the
/// points are, so a graph that is not there, or not used, costs the time to build it and nothing else.
#[async_trait]
pub trait Graphs: Send + Sync {
    /// What the graphs of a collection that is created now are made of: saved ones are loaded if the words are the same.
    /// `None` if none can be loaded.
    fn parameters(&self, spec: &CollectionSpec) -> Option<String>;

    /// The graphs of a collection as they are while the parts are asked for. `None` if there is nothing to save.
    fn save(&self, collection: &CollectionRef) -> Option<SavedGraphs>;

    /// Takes graphs with the same parameters for a collection that is being restored, after
    /// [`RestoreStep::Collection`](crate::RestoreStep) and before its first point. `points` is how many are about to come.
    /// Points that the graphs do not know in this version are added to them.
    ///
    /// # Errors
    /// `Corrupt` if the parts are not what [`save`](Self::save) writes, `StorageFull` if they are larger than there is
    /// room for; the collection is then loaded as without them.
    async fn load(
        &self,
        cx: &Context,
        collection: &CollectionRef,
        points: u64,
        parts: Vec<Vec<u8>>,
    ) -> Result<()>;
}
