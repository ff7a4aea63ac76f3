//! Checks of `restore`, of reopening and of closing.
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

use super::script::{Script, cx, name, state_of};
use super::{Generator, ModelStore, StoreFactory, cases};
use crate::entry::{CollectionRef, Position};
use crate::error::ErrorKind;
use crate::id::Lsn;
use crate::point::Point;
use crate::query::SearchQuery;
use crate::spec::{CollectionSpec, Distance};
use crate::store::{Durability, RestoreStep, VectorStore};

/// Loads the whole state of one store into another, at this position.
pub async fn copy(from: &dyn VectorStore, into: &dyn VectorStore, position: Position) {
    into.restore(&cx(), RestoreStep::Begin).await.unwrap();
    assert_eq!(into.position(&cx()).await.unwrap(), None, "a half-loaded store has no position");
    for (spec, incarnation, records) in state_of(from).await {
        into.restore(&cx(), RestoreStep::Collection { spec: &spec, incarnation }).await.unwrap();
        let collection = CollectionRef { name: spec.name.clone(), incarnation };
        for records in records.chunks(7) {
            let step = RestoreStep::Points { collection: &collection, records };
            into.restore(&cx(), step).await.unwrap();
        }
    }
    into.restore(&cx(), RestoreStep::Finish { position }).await.unwrap();
    assert_eq!(into.position(&cx()).await.unwrap(), Some(position));
}

/// A restore forgets what was there and loads the rest exactly, versions too.
pub async fn a_restore_loads_the_state_of_another_store<F: StoreFactory>(factory: &F) {
    let script = Generator::new(3).history(50);
    let (model, store) = (ModelStore::default(), factory.create().await);
    script.apply_to(&model).await;
    Generator::new(4).history(10).apply_to(&store).await;
    copy(&model, &store, script.position(script.end())).await;
    assert_eq!(state_of(&store).await, state_of(&model).await);
}

/// A state newer than its position is made exact by replaying the log from the position.
pub async fn a_restore_while_the_source_moves_on_is_made_exact_by_the_log<F: StoreFactory>(factory: &F) {
    for seed in 20..20 + cases(2) {
        let script = Generator::new(seed).history(50);
        let (model, store) = (ModelStore::default(), factory.create().await);
        let (begun, read) = (Lsn(script.end().0 / 3), Lsn(script.end().0 * 2 / 3));
        model.apply(&cx(), &script.run(Lsn::ZERO, read)).await.unwrap();
        copy(&model, &store, script.position(begun)).await;
        script.apply_to(&store).await;
        script.apply_to(&model).await;
        assert_eq!(state_of(&store).await, state_of(&model).await, "seed {seed}");
    }
}

/// Steps out of order are refused, and a restore that was begun leaves no position.
pub async fn a_restore_out_of_order_is_refused<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let spec = CollectionSpec::dense(name("docs"), 2, Distance::Dot);
    let step = RestoreStep::Collection { spec: &spec, incarnation: Lsn(1) };
    assert_eq!(store.restore(&cx(), step).await.unwrap_err().kind(), ErrorKind::Invalid);
    store.restore(&cx(), RestoreStep::Begin).await.unwrap();
    let unknown = CollectionRef { name: name("docs"), incarnation: Lsn(1) };
    let step = RestoreStep::Points { collection: &unknown, records: &[] };
    assert_eq!(store.restore(&cx(), step).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.position(&cx()).await.unwrap(), None);
}

/// What was flushed is there after the store was closed and opened again.
pub async fn a_reopened_store_holds_what_was_flushed<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    if store.capabilities().durability == Durability::Volatile {
        assert_eq!(store.flush(&cx()).await.unwrap(), None, "a volatile store has no durable position");
        println!("SKIPPED: a volatile store is not reopened");
        return;
    }
    let script = Generator::new(5).history(40);
    script.apply_to(&store).await;
    assert_eq!(store.flush(&cx()).await.unwrap(), Some(script.position(script.end())));
    let before = state_of(&store).await;
    store.close(&cx()).await.unwrap();
    let store = factory.reopen(store).await.unwrap();
    assert_eq!(store.position(&cx()).await.unwrap(), Some(script.position(script.end())));
    assert_eq!(state_of(&store).await, before);
}

/// A store that is opened again as a crash left it is where it says, and goes on from there.
pub async fn a_store_reopened_without_a_flush_is_never_ahead_of_its_data<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    if store.capabilities().durability == Durability::Volatile {
        println!("SKIPPED: a volatile store is not reopened");
        return;
    }
    let script = Generator::new(6).history(60);
    let half = Lsn(script.end().0 / 2);
    store.apply(&cx(), &script.run(Lsn::ZERO, half)).await.unwrap();
    store.flush(&cx()).await.unwrap();
    store.apply(&cx(), &script.run(half, script.end())).await.unwrap();
    let store = factory.reopen(store).await.unwrap();
    assert!(store.position(&cx()).await.unwrap().is_some_and(|position| position.lsn >= half));
    script.apply_to(&store).await;
    let model = ModelStore::default();
    script.apply_to(&model).await;
    assert_eq!(state_of(&store).await, state_of(&model).await);
}

/// Calls to a closed store answer `Unavailable`.
pub async fn a_closed_store_says_so<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let mut script = Script::new(1);
    let docs = script.create(&CollectionSpec::dense(name("docs"), 2, Distance::Dot));
    script.upsert(&docs, vec![Point::new(1, vec![1.0, 1.0])]);
    script.apply_to(&store).await;
    store.close(&cx()).await.unwrap();
    let docs = name("docs");
    let kinds = [
        store.ping(&cx()).await.unwrap_err().kind(),
        store.count(&cx(), &docs, None).await.unwrap_err().kind(),
        store.search(&cx(), &docs, &SearchQuery::new(vec![1.0, 1.0])).await.unwrap_err().kind(),
        store.collections(&cx()).await.unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Unavailable; 4]);
}
