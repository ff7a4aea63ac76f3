//! `events`.

use mainstay::Result;

use super::subject::Subject;
use crate::output::Output;

/// Prints events until the tier is closed, or the command interrupted.
pub async fn run(subject: &Subject, output: Output) -> Result<()> {
    let mut happenings = subject.happenings().await?;
    while let Some(event) = happenings.next().await? {
        output.print(&event, || event["text"].as_str().unwrap_or_default().to_owned());
    }
    Ok(())
}
