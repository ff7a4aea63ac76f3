//! Speaking to a tier from another process on the same machine.
//!
//! The process that owns a tier listens on a socket in the directory of the tier's log, which only its own user may
//! open, until the tier closes. A connection carries lines of JSON: an [`Order`] each way in, an answer each way
//! back, `{"done": …}` or `{"failed": {"kind": …, "text": …}}`. To [`Order::Events`] there are as many answers as
//! there are events.
//!
//! | module | idea |
//! |---|---|
//! | `server` | listens and does what it is told |
//! | `client` | [`Control`], which tells it |
//! | `wire` | what a line says |
//! | `place` | where the socket is |

mod client;
mod place;
mod server;
mod wire;

pub use client::Control;
pub(crate) use server::Server;
pub use wire::Order;
