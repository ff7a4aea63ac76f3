//! `failover`, `failback`, `quarantine` and `release`: told to the process that holds the tier.

use std::path::Path;
use std::process::ExitCode;

use mainstay::control::Order;
use mainstay::{Config, Result};
use serde_json::json;

use super::subject::held;
use crate::output::Output;

/// Gives the order, and shows who serves then.
pub async fn run(config: &Path, order: Order, output: Output) -> Result<ExitCode> {
    let mut tier = held(&Config::load(config)?).await?;
    tier.order(&order).await?;
    let status = tier.order(&Order::Status {}).await?;
    let value = json!({
        "active": status["active"],
        "level": status["level"],
        "level_name": status["level_name"],
    });
    output.print(&value, || {
        let text = |key: &str| status[key].as_str().unwrap_or("nobody").to_owned();
        format!("{} serves first, level {} ({})", text("active"), status["level"], text("level_name"))
    });
    Ok(ExitCode::SUCCESS)
}
