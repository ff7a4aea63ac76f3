//! Rehearsed faults under load.
//!
//! [`Load`] searches and writes from several tasks and remembers every write that was acked; [`LoseMember`]
//! takes a member's directory away and gives it back, and [`LoseServer`] does to a member's server what may
//! happen to one; [`verify`](fn@verify) then reads every acked write back from every
//! member. The promises are counted, never assumed.

mod footprint;
mod latencies;
mod load;
mod lose_member;
mod lose_server;
mod proxy;
mod schedule;
mod server;
mod verify;

pub use footprint::Footprint;
pub use latencies::Latencies;
pub use load::{Load, LoadOptions, LoadReport};
pub use lose_member::{LoseMember, Round};
pub use lose_server::{Fault, LoseServer};
pub use proxy::{Proxy, Weather};
pub use schedule::{at_random, in_turn};
pub use server::ServerProcess;
pub use verify::{Expected, MemberState, Verdict, verify, verify_late};

use mainstay::{Result, Tier};

/// Lets members that came back serve in their order without waiting any longer, so that the next fault strikes the
/// one that serves.
fn serve_again(tier: &Tier) -> Result<()> {
    let status = tier.status();
    let back =
        status.members.iter().filter(|member| member.state == mainstay::MemberState::Live && !member.trusted);
    back.map(|member| member.name.as_str()).try_for_each(|name| tier.failback(name))
}
