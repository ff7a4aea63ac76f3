//! The simulation: the real tier, its appliers and its log over simulated stores, a simulated disk and tokio's paused
//! clock, with everything random from one seed.
//!
//! | module | idea |
//! |---|---|
//! | [`scenario`] | what a seed decides before anything happens |
//! | [`world`] | what one seed shares: randomness, clock, history, what was promised |
//! | [`truth`] | the model: what the log says, computed apart from every store |
//! | [`disk`] | the disk under the log, and the log as the tier sees it |
//! | [`store`] | stores that keep their contract in bad weather |
//! | [`fate`] | what happens beside single calls: crashes, wipes, hangs, a full disk |
//! | [`client`] | random operations, and what may be expected of their answers |
//! | [`run`] | one seed, from the first life of the process to the last comparison |
//! | [`hunt`] | many seeds, and the search for a deliberate bug |
//!
//! A process is one tokio runtime with a paused clock; a crash drops it, at any step. Stores and disk outlive it. After
//! every step a promise is compared with what is known from above: P1 acked writes are in the log, P2 no search fails
//! while a member is well, P3 data is what the log says, P4 answers say what they are, P5 cursors do not lie, P6
//! members are equal in the end, P7 a poisoned entry stops its member alone, P8 bad input leaves no trace, P9 a failed
//! log refuses, P10 damage is noticed, P11 the log keeps its limit.

pub mod client;
pub mod disk;
pub mod fate;
pub mod hunt;
pub mod run;
pub mod scenario;
pub mod store;
pub mod truth;
pub mod world;
