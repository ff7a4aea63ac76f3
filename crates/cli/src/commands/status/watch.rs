//! `status --watch`: the screen drawn again and again, or a line each time where nobody looks at a screen.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use mainstay::{Event, Tier};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::{json, text};
use crate::args::Format;
use crate::commands::events::event_json;
use crate::output::Output;

/// Events that stay on the screen.
const LAST_EVENTS: usize = 5;
/// To the top left corner, and everything below it away.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What happened, and when.
type Happened = (Instant, Event);

/// Shows the status every `interval` until the tier is closed, or the command interrupted.
pub async fn run(tier: &Tier, interval: Duration, output: Output) {
    let screen = output.format == Format::Table && std::io::stdout().is_terminal();
    let mut events = tier.events();
    let mut last: VecDeque<Happened> = VecDeque::new();
    let mut next = Instant::now();
    loop {
        let shown = match (output.format, screen) {
            (Format::Json, _) => show_json(tier, &mut last),
            (Format::Table, true) => show_screen(tier, &last, interval),
            (Format::Table, false) => show_lines(tier, &mut last),
        };
        // Whoever read this went away.
        if shown.is_err() {
            return;
        }
        next = Instant::now().max(next + interval);
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                event = events.next() => match event {
                    Some(event) => {
                        last.push_back((Instant::now(), event));
                        // What is printed at each turn is let go then; a screen keeps a few.
                        let most = if screen { LAST_EVENTS } else { usize::from(u8::MAX) };
                        last.drain(..last.len().saturating_sub(most));
                    }
                    None => return,
                },
            }
        }
    }
}

/// The status with the events since the one before, as one line.
fn show_json(tier: &Tier, last: &mut VecDeque<Happened>) -> std::io::Result<()> {
    let mut value = json::of(&tier.status());
    value["events"] = last.drain(..).map(|(_, event)| event_json(&event)).collect::<Vec<Value>>().into();
    writeln!(std::io::stdout(), "{value}")
}

/// The events since the status before, then the status.
fn show_lines(tier: &Tier, last: &mut VecDeque<Happened>) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    for (_, event) in last.drain(..) {
        writeln!(out, "{event}")?;
    }
    writeln!(out, "{}", text::line(&tier.status()))
}

fn show_screen(tier: &Tier, last: &VecDeque<Happened>, interval: Duration) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{CLEAR}{}\n", text::screen(&tier.status()))?;
    for (at, event) in last {
        writeln!(out, "{:>5} s ago  {event}", at.elapsed().as_secs())?;
    }
    writeln!(out, "every {interval:?}; ctrl-c ends it")?;
    out.flush()
}
