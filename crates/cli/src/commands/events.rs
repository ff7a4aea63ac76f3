//! `events`.

use mainstay::{Event, Tier};
use serde_json::{Value, json};

use crate::output::Output;

/// Prints events until the tier is closed, or the command interrupted.
pub async fn run(tier: &Tier, output: Output) {
    let mut events = tier.events();
    while let Some(event) = events.next().await {
        output.print(&event_json(&event), || event.to_string());
    }
}

/// An event as JSON.
pub fn event_json(event: &Event) -> Value {
    let mut value = match event {
        Event::State { member, from, to, reason } => {
            json!({ "member": member.as_str(), "from": from.as_str(), "to": to.as_str(), "reason": reason })
        }
        Event::Failover { from, to } | Event::Failback { from, to } => {
            json!({ "from": from.as_ref().map(|n| n.as_str()), "to": to.as_ref().map(|n| n.as_str()) })
        }
        Event::Alert { member, failed_checks, reason } => {
            json!({ "member": member.as_str(), "failed_checks": failed_checks, "reason": reason })
        }
        Event::Drift { member, points, collections, repaired } => json!({
            "member": member.as_str(),
            "points": points,
            "collections": collections,
            "repaired": repaired,
        }),
        Event::Shadow { member, overlap_percent } => {
            json!({ "member": member.as_str(), "overlap_percent": overlap_percent })
        }
        Event::Missed(events) => json!({ "events": events }),
        other => json!({ "text": other.to_string() }),
    };
    value["event"] = event.as_str().into();
    value
}
