//! The collections that exist at the end of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstay_core::{
    CollectionName, CollectionRef, CollectionSpec, Entry, Error, ErrorKind, Lsn, Op, Result,
};
use parking_lot::RwLock;

/// A collection with its incarnation.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// Its spec.
    pub spec: Arc<CollectionSpec>,
    /// The LSN that created it.
    pub incarnation: Lsn,
}

impl Collection {
    /// The name and incarnation that log entries carry.
    pub fn reference(&self) -> CollectionRef {
        CollectionRef { name: self.spec.name.clone(), incarnation: self.incarnation }
    }
}

/// The collections at one LSN.
pub type Collections = BTreeMap<CollectionName, Collection>;

/// What a fold over log entries makes of the collections.
pub fn fold(collections: &mut Collections, lsn: Lsn, op: &Op) {
    match op {
        Op::CreateCollection(spec) | Op::AdoptCollection { spec, .. } => {
            let created = Collection { spec: Arc::new(spec.clone()), incarnation: lsn };
            collections.insert(spec.name.clone(), created);
        }
        Op::DropCollection(dropped) => {
            if collections.get(&dropped.name).is_some_and(|c| c.incarnation == dropped.incarnation) {
                collections.remove(&dropped.name);
            }
        }
        Op::Upsert { .. } | Op::Delete { .. } | Op::PatchPayload { .. } => {}
    }
}

/// The collections at the end of the log, with the changes since its first entry, so that the state
/// at any cut is known.
pub struct Catalog {
    state: RwLock<State>,
}

struct State {
    current: Collections,
    base: Collections,
    changes: BTreeMap<Lsn, Op>,
    /// Names whose creation or dropping is on its way into the log.
    changing: BTreeSet<CollectionName>,
}

impl Catalog {
    /// The catalog before the first entry of a log.
    pub fn new(base: Collections) -> Self {
        let state =
            State { current: base.clone(), base, changes: BTreeMap::new(), changing: BTreeSet::new() };
        Self { state: RwLock::new(state) }
    }

    /// Takes an entry of the log into account; entries come in order.
    pub fn observe(&self, entry: &Entry) {
        if entry.op.is_of_collections() {
            let mut state = self.state.write();
            fold(&mut state.current, entry.lsn, &entry.op);
            state.changes.insert(entry.lsn, entry.op.clone());
        }
    }

    /// The collection of this name.
    ///
    /// # Errors
    /// `NotFound`, naming a similar collection if there is one.
    pub fn get(&self, name: &CollectionName) -> Result<Collection> {
        let state = self.state.read();
        if let Some(found) = state.current.get(name) {
            return Ok(found.clone());
        }
        let nearest = state
            .current
            .keys()
            .map(|known| (strsim::jaro_winkler(known.as_str(), name.as_str()), known))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        Err(match nearest {
            Some((_, known)) => Error::new(
                ErrorKind::NotFound,
                format!("there is no collection `{name}`; did you mean `{known}`?"),
            )
            .with_collection(name),
            None => Error::collection_not_found(name),
        })
    }

    /// All specs, by name.
    pub fn specs(&self) -> Vec<CollectionSpec> {
        self.state.read().current.values().map(|c| (*c.spec).clone()).collect()
    }

    /// The collections after all entries up to `lsn`.
    pub fn at(&self, lsn: Lsn) -> Collections {
        let state = self.state.read();
        let mut collections = state.base.clone();
        state.changes.range(..=lsn).for_each(|(at, op)| fold(&mut collections, *at, op));
        collections
    }

    /// Forgets the changes up to `lsn`, which is where the log was cut.
    pub fn cut(&self, lsn: Lsn) {
        let base = self.at(lsn);
        let mut state = self.state.write();
        state.changes.retain(|at, _| *at > lsn);
        state.base = base;
    }

    /// Claims a name for creation.
    ///
    /// # Errors
    /// `AlreadyExists` if the collection is there or being created or dropped.
    pub fn claim_new(&self, name: &CollectionName) -> Result<Claim<'_>> {
        let mut state = self.state.write();
        if state.current.contains_key(name) || state.changing.contains(name) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("the collection `{name}` exists already"),
            )
            .with_collection(name));
        }
        state.changing.insert(name.clone());
        Ok(Claim { catalog: self, name: name.clone() })
    }

    /// Claims an existing collection for dropping.
    ///
    /// # Errors
    /// `NotFound` if it is not there or already being dropped.
    pub fn claim_drop(&self, name: &CollectionName) -> Result<(Claim<'_>, Collection)> {
        let found = self.get(name)?;
        let mut state = self.state.write();
        if !state.changing.insert(name.clone()) {
            return Err(Error::collection_not_found(name));
        }
        Ok((Claim { catalog: self, name: name.clone() }, found))
    }
}

/// A name that nobody else can create or drop meanwhile.
pub struct Claim<'a> {
    catalog: &'a Catalog,
    name: CollectionName,
}

impl Claim<'_> {
    /// The change is in the log at this LSN.
    pub fn logged(self, lsn: Lsn, op: &Op) {
        let mut state = self.catalog.state.write();
        fold(&mut state.current, lsn, op);
        state.changes.insert(lsn, op.clone());
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.catalog.state.write().changing.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::Distance;

    use super::*;

    fn name(text: &str) -> CollectionName {
        CollectionName::new(text).unwrap()
    }

    fn create(catalog: &Catalog, text: &str, lsn: u64) -> Result<()> {
        let op = Op::CreateCollection(CollectionSpec::dense(name(text), 2, Distance::Dot));
        catalog.claim_new(&name(text))?.logged(Lsn(lsn), &op);
        Ok(())
    }

    #[test]
    fn a_name_is_created_once() {
        let catalog = Catalog::new(Collections::new());
        create(&catalog, "docs", 1).unwrap();
        assert_eq!(create(&catalog, "docs", 2).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let held = catalog.claim_new(&name("other")).unwrap();
        assert_eq!(create(&catalog, "other", 3).unwrap_err().kind(), ErrorKind::AlreadyExists);
        drop(held);
        create(&catalog, "other", 4).unwrap();
    }

    #[test]
    fn the_state_at_every_lsn_is_known_also_after_a_cut() {
        let catalog = Catalog::new(Collections::new());
        create(&catalog, "a", 1).unwrap();
        create(&catalog, "b", 5).unwrap();
        let (claim, found) = catalog.claim_drop(&name("a")).unwrap();
        claim.logged(Lsn(7), &Op::DropCollection(found.reference()));
        create(&catalog, "a", 9).unwrap();
        catalog.cut(Lsn(6));
        assert_eq!(catalog.at(Lsn(6)).keys().map(|k| k.as_str().to_owned()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(catalog.at(Lsn(8)).len(), 1);
        assert_eq!(catalog.at(Lsn(9))[&name("a")].incarnation, Lsn(9));
    }

    #[test]
    fn a_misspelt_collection_gets_a_suggestion() {
        let catalog = Catalog::new(Collections::new());
        create(&catalog, "documents", 1).unwrap();
        let error = catalog.get(&name("docments")).unwrap_err();
        assert!(error.to_string().contains("did you mean `documents`"), "{error}");
    }
}
