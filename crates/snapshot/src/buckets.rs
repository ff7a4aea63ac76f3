//! Which bucket a point is in, and the hash of a bucket.
//!
//! ```text
//! bucket     = the first `bits` bits of BLAKE3(id key)
//! bucket hash     = BLAKE3(id key, version, id key, version, …), ids ascending, versions as 8 bytes, big-endian
//! collection hash = BLAKE3(incarnation, bits, then for each bucket that has points: number, points, bucket hash)
//! snapshot hash   = BLAKE3(for each collection: length of its name, its name, collection hash)
//! ```
//!
//! All numbers are 8 bytes, big-endian. Id and version say everything about a point: a point that changes gets the LSN of
//! the entry that changed it.

use mainstay_core::{CollectionName, Lsn, PointId};

use crate::layout::ContentHash;

/// Most bits, which makes 65,536 buckets.
pub const MAX_BITS: u32 = 16;
/// As many bits make enough buckets for any collection.
const ENOUGH_BITS: u32 = 7;
/// Until there are enough, buckets have so many times fewer points than they should, at the most.
const SMALLEST: u64 = 4;
/// Bytes that are hashed at once: BLAKE3 goes through several pieces of a kibibyte beside each other, best if there are a
/// power of two of them.
const HASHED_AT_ONCE: usize = 64 << 10;

/// The bucket of an id among `1 << bits`; bits beyond [`MAX_BITS`] count as that.
pub fn bucket_of(id: PointId, bits: u32) -> u32 {
    let hash = blake3::hash(&id.to_key());
    let [a, b, c, d, ..] = *hash.as_bytes();
    // Shifting by 32 is no shift.
    u32::from_be_bytes([a, b, c, d]).checked_shr(32 - bits.min(MAX_BITS)).unwrap_or(0)
}

/// How many bits give buckets of about `bucket_points` points, or down to a quarter as many where there would be fewer than
/// 128 buckets: a few changed points are to cost about a hundredth of a collection.
pub fn fitting_bits(points: u64, bucket_points: u64) -> u32 {
    let smaller = bits_for(points, bucket_points / SMALLEST);
    bits_for(points, bucket_points).max(smaller.min(ENOUGH_BITS))
}

fn bits_for(points: u64, bucket_points: u64) -> u32 {
    let buckets = points.div_ceil(bucket_points.max(1)).max(1);
    buckets.next_power_of_two().trailing_zeros().min(MAX_BITS)
}

/// The hash of a bucket; points come with ids ascending.
pub fn bucket_hash(points: impl IntoIterator<Item = (PointId, Lsn)>) -> ContentHash {
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), Vec::new());
    for (id, version) in points {
        bytes.extend(id.to_key());
        bytes.extend(version.0.to_be_bytes());
        if let Some(whole) = bytes.get(..HASHED_AT_ONCE) {
            hasher.update(whole);
            bytes.drain(..HASHED_AT_ONCE);
        }
    }
    hasher.update(&bytes);
    ContentHash::new(*hasher.finalize().as_bytes())
}

/// The hash of a collection over its buckets that have points: number, points and hash, numbers ascending.
pub fn collection_hash(
    incarnation: Lsn,
    bits: u32,
    buckets: impl IntoIterator<Item = (u32, u64, ContentHash)>,
) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&incarnation.0.to_be_bytes()).update(&u64::from(bits).to_be_bytes());
    for (bucket, points, hash) in buckets {
        hasher.update(&u64::from(bucket).to_be_bytes()).update(&points.to_be_bytes()).update(hash.bytes());
    }
    ContentHash::new(*hasher.finalize().as_bytes())
}

/// The hash of a snapshot over its collections, by name.
pub fn snapshot_hash<'a>(
    collections: impl IntoIterator<Item = (&'a CollectionName, ContentHash)>,
) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    for (name, hash) in collections {
        hasher.update(&(name.as_str().len() as u64).to_be_bytes()).update(name.as_str().as_bytes());
        hasher.update(hash.bytes());
    }
    ContentHash::new(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_bucket_is_that_of_its_points_one_after_the_other() {
        for count in [0, 1, 2_621, 2_622, 10_000_u64] {
            let points: Vec<_> = (0..count).map(|n| (PointId::Num(n * 7), Lsn(n + 1))).collect();
            let of_point = |(id, version): &(PointId, Lsn)| {
                id.to_key().into_iter().chain(version.0.to_be_bytes()).collect::<Vec<_>>()
            };
            let bytes: Vec<u8> = points.iter().flat_map(of_point).collect();
            assert_eq!(bucket_hash(points).bytes(), blake3::hash(&bytes).as_bytes(), "{count} points");
        }
    }

    #[test]
    fn every_id_has_a_bucket_and_buckets_are_about_equal() {
        for bits in [0, 1, 4, MAX_BITS] {
            let mut counts = vec![0_u32; 1 << bits];
            for n in 0..10_000 {
                counts[bucket_of(PointId::Num(n), bits) as usize] += 1;
            }
            assert!(bits > 4 || counts.iter().all(|count| *count > 10_000 / (2 << bits)), "{counts:?}");
        }
    }

    #[test]
    fn a_bucket_of_more_bits_is_part_of_one_of_fewer() {
        for n in 0..1_000 {
            let id = PointId::Num(n);
            assert_eq!(bucket_of(id, 7) >> 3, bucket_of(id, 4));
        }
    }

    #[test]
    fn buckets_grow_in_number_with_the_points() {
        let bits = [0, 1, 1_024, 1_025, 4_096, 100_000, 131_072, 500_000, 524_289, 1 << 20, u64::MAX];
        assert_eq!(bits.map(|n| fitting_bits(n, 4_096)), [0, 0, 0, 1, 2, 7, 7, 7, 8, 8, 16]);
        assert_eq!([0, 1, 2, 1_000].map(|n| fitting_bits(n, 1)), [0, 0, 1, 10]);
    }
}
