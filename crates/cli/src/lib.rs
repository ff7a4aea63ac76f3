//! What the `mainstay` command is made of besides its commands: reading and writing files of
//! points, turning a directory of text files into points, and rehearsing faults.
//!
//! | module | idea |
//! |---|---|
//! | [`import`] | points from JSONL and Parquet, in batches, resumable |
//! | [`place`] | where a store is, as the command line says it |
//! | [`diff`] | which points two stores hold differently |
//! | [`copy`] | one store into another, exactly |
//! | [`drill`] | faults under load, and what they cost |
//! | [`survey`] | what files hold, before a member in memory is filled with it |
//! | [`export`] | records to JSONL and Parquet that [`import`] reads back |
//! | [`index`] | which files of a directory to index, and their points |

pub mod copy;
pub mod diff;
pub mod drill;
pub mod export;
pub mod import;
pub mod index;
pub mod place;
pub mod survey;
