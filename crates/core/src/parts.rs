//! What is written, cut into parts that a receiver takes at once.

use std::iter;

/// Cuts items, each with its size in bytes, into parts of at most so many and so large, one at least; an item that is larger
/// alone gets a part of its own.
///
/// ```
/// use mainstay_core::parts::parts;
/// let sized = ["a", "bb", "ccccc", "d", "e", "f"].map(|text| (text.len(), text));
/// let parts: Vec<_> = parts(sized, 2, 4).collect();
/// assert_eq!(parts, [vec!["a", "bb"], vec!["ccccc"], vec!["d", "e"], vec!["f"]]);
/// ```
pub fn parts<T>(
    sized: impl IntoIterator<Item = (usize, T)>,
    most: usize,
    most_bytes: usize,
) -> impl Iterator<Item = Vec<T>> {
    let mut sized = sized.into_iter().peekable();
    iter::from_fn(move || {
        let (mut bytes, first) = sized.next()?;
        let mut part = vec![first];
        while let Some((size, item)) =
            sized.next_if(|(size, _)| part.len() < most && bytes.saturating_add(*size) <= most_bytes)
        {
            bytes = bytes.saturating_add(size);
            part.push(item);
        }
        Some(part)
    })
}
