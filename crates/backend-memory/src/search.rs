//! The nearest points: candidates from the graph or from a scan, then exact scores.

use mainstay_core::{
    CollectionSpec, Error, Filter, Hit, PointId, Result, SearchQuery, Vector, VectorSpec, score,
};

use crate::collection::{Collection, State};
use crate::graph::Graph;

/// Up to this many points a scan is as fast as the graph, and exact.
const SCAN_POINTS: u64 = 1_000;
/// A filter that leaves at most this many points is answered by scanning them; a graph search would pass
/// over most of what it meets.
const SCAN_CANDIDATES: u64 = 4_000;

/// A hit before its fields are looked up.
type Scored = (f32, PointId, u32);

/// Whether a search is quick enough to run where it is asked, instead of on a blocking thread.
pub fn is_quick(collection: &Collection, query: &SearchQuery) -> bool {
    let points = collection.len();
    points <= SCAN_POINTS || (!query.exact && query.filter.is_none() && query.limit + query.offset <= 1_000)
}

/// The hits of a search.
pub fn search(collection: &Collection, query: &SearchQuery) -> Result<Vec<Hit>> {
    let spec = collection.spec.vector(&query.using)?;
    let state = collection.state.read();
    let wanted = query.limit.saturating_add(query.offset);
    let scored = match (spec, &query.vector) {
        (VectorSpec::Dense { dimension, .. }, Vector::Dense(vector)) if vector.len() == dimension => {
            dense(&state, query, vector, wanted)?
        }
        (VectorSpec::Sparse, Vector::Sparse(_)) => sparse(&state, query),
        _ => return Err(wrong_vector(&collection.spec, query)),
    };
    let mut scored: Vec<Scored> =
        scored.into_iter().filter(|(s, ..)| score::passes(spec, *s, query.score_threshold)).collect();
    let order = |a: &Scored, b: &Scored| score::order(spec, (a.0, a.1), (b.0, b.1));
    if scored.len() > wanted {
        scored.select_nth_unstable_by(wanted - 1, order);
        scored.truncate(wanted);
    }
    scored.sort_unstable_by(order);
    let hits: Vec<Scored> = scored.into_iter().skip(query.offset).take(query.limit).collect();
    collection.touch(&state, hits.iter().map(|(.., slot)| *slot));
    Ok(hits
        .into_iter()
        .filter_map(|(score, _, slot)| {
            state.point(slot, &query.fields).map(|(version, point)| Hit { score, version, point })
        })
        .collect())
}

fn wrong_vector(spec: &CollectionSpec, query: &SearchQuery) -> Error {
    let wrong = spec.check_vector(&query.using, &query.vector).err();
    wrong.unwrap_or_else(|| Error::invalid("the vector does not fit the collection"))
}

fn accepts(state: &State, filter: Option<&Filter>, slot: u32) -> bool {
    state.is_alive(slot)
        && filter
            .is_none_or(|filter| state.slots.get(slot).is_some_and(|s| filter.accepts(s.id(), s.payload())))
}

fn dense(state: &State, query: &SearchQuery, vector: &[f32], wanted: usize) -> Result<Vec<Scored>> {
    let Some((at, graph)) = state.graph(&query.using) else { return Ok(Vec::new()) };
    let filter = query.filter.as_ref().filter(|filter| !filter.is_empty());
    let candidates = filter.and_then(|filter| state.indexes.candidates(filter));
    let residual = if candidates.as_ref().is_some_and(|c| c.exact) { None } else { filter };
    let has_vector = |slot: u32| state.slots.get(slot).is_some_and(|held| held.has_dense(at));
    let points = state.ids.len() as u64;
    let few = candidates.as_ref().is_some_and(|c| c.slots.len() <= SCAN_CANDIDATES);
    let scan = query.exact || !graph.ranks() || points <= SCAN_POINTS || few || wanted as u64 * 4 > points;
    if !scan {
        // A slot that the graph has and the state does not know yet is not alive.
        let allowed = |slot: u32| {
            candidates.as_ref().is_none_or(|c| c.slots.contains(slot)) && accepts(state, residual, slot)
        };
        let plain = filter.is_none() && state.buried.is_empty();
        let mut slots = graph.nearest(vector, wanted, if plain { None } else { Some(&allowed) })?;
        slots.retain(|slot| state.is_alive(*slot));
        // The graph finds too few where a filter leaves only scattered points.
        if slots.len() >= wanted || filter.is_none() {
            return Ok(scores(state, graph, vector, slots.into_iter()));
        }
    }
    let scanned: Vec<Scored> = match &candidates {
        Some(candidates) => {
            let slots = candidates.slots.iter().filter(|s| has_vector(*s) && accepts(state, residual, *s));
            scores(state, graph, vector, slots)
        }
        None => {
            let slots = state.ids.slots().filter(|s| has_vector(*s) && accepts(state, filter, *s));
            scores(state, graph, vector, slots)
        }
    };
    Ok(scanned)
}

fn scores(state: &State, graph: &Graph, vector: &[f32], slots: impl Iterator<Item = u32>) -> Vec<Scored> {
    let vectors = graph.vectors();
    let mut buffer = Vec::new();
    slots
        .filter_map(|slot| {
            let score = score::dense(graph.distance(), vector, vectors.get(slot, &mut buffer)?);
            Some((score, state.slots.get(slot)?.id(), slot))
        })
        .collect()
}

fn sparse(state: &State, query: &SearchQuery) -> Vec<Scored> {
    let filter = query.filter.as_ref();
    state
        .ids
        .after(None)
        .filter(|(_, slot)| accepts(state, filter, *slot))
        .filter_map(|(id, slot)| {
            let held = state.slots.get(slot)?;
            let (_, vector) = held.sparse().iter().find(|(name, _)| *name == query.using)?;
            let Vector::Sparse(wanted) = &query.vector else { return None };
            wanted.overlaps(vector).then(|| (wanted.dot(vector), id, slot))
        })
        .collect()
}
