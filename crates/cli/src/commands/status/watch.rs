//! `status --watch`: the screen drawn again and again, or a line each time where nobody looks at a screen.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use mainstay::Result;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::text;
use crate::args::Format;
use crate::commands::subject::Subject;
use crate::output::Output;

/// Events that stay on the screen.
const LAST_EVENTS: usize = 5;
/// To the top left corner, and everything below it away.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What happened, and when.
type Happened = (Instant, Value);

/// Shows the status every `interval` until the tier is closed, or the command interrupted.
pub async fn run(subject: &mut Subject, interval: Duration, output: Output) -> Result<()> {
    let screen = output.format == Format::Table && std::io::stdout().is_terminal();
    let mut happenings = subject.happenings().await?;
    let mut last: VecDeque<Happened> = VecDeque::new();
    let mut next = Instant::now();
    loop {
        let status = subject.status().await?;
        let shown = match (output.format, screen) {
            (Format::Json, _) => show_json(status, &mut last),
            (Format::Table, true) => show_screen(&status, &last, interval),
            (Format::Table, false) => show_lines(&status, &mut last),
        };
        // Whoever read this went away.
        if shown.is_err() {
            return Ok(());
        }
        next = Instant::now().max(next + interval);
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                event = happenings.next() => match event? {
                    Some(event) => {
                        last.push_back((Instant::now(), event));
                        // What is printed at each turn is let go then; a screen keeps a few.
                        let most = if screen { LAST_EVENTS } else { usize::from(u8::MAX) };
                        last.drain(..last.len().saturating_sub(most));
                    }
                    None => return Ok(()),
                },
            }
        }
    }
}

/// The status with the events since the one before, as one line.
fn show_json(mut status: Value, last: &mut VecDeque<Happened>) -> std::io::Result<()> {
    status["events"] = last.drain(..).map(|(_, event)| event).collect::<Vec<Value>>().into();
    writeln!(std::io::stdout(), "{status}")
}

/// The events since the status before, then the status.
fn show_lines(status: &Value, last: &mut VecDeque<Happened>) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    for (_, event) in last.drain(..) {
        writeln!(out, "{}", line_of(&event))?;
    }
    writeln!(out, "{}", text::line(status))
}

fn show_screen(status: &Value, last: &VecDeque<Happened>, interval: Duration) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{CLEAR}{}\n", text::screen(status))?;
    for (at, event) in last {
        writeln!(out, "{:>5} s ago  {}", at.elapsed().as_secs(), line_of(event))?;
    }
    writeln!(out, "every {interval:?}; ctrl-c ends it")?;
    out.flush()
}

fn line_of(event: &Value) -> &str {
    event["text"].as_str().unwrap_or_default()
}
