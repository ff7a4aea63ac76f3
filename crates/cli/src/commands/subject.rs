//! The tier that a command looks at: opened by the command, or held by another process.

use std::path::Path;

use mainstay::control::{Control, Order};
use mainstay::{Config, Error, ErrorKind, Events, Result, Tier};
use serde_json::Value;

/// A tier, here or there.
pub enum Subject {
    /// Opened by this command.
    Here(Tier),
    /// Held by another process, which answers.
    There(Box<Config>, Control),
}

impl Subject {
    /// The tier of a config: as the process that holds it sees it, or opened if there is none.
    pub async fn open(config: &Path) -> Result<Self> {
        let config = Config::load(config)?;
        match Control::connect(&config).await? {
            Some(control) => Ok(Self::There(Box::new(config), control)),
            None => Tier::open(config).await.map(Self::Here),
        }
    }

    /// How the tier is, as [`Status::to_json`](mainstay::Status::to_json) says it.
    pub async fn status(&mut self) -> Result<Value> {
        match self {
            Self::Here(tier) => Ok(tier.status().to_json()),
            Self::There(_, control) => control.order(&Order::Status {}).await,
        }
    }

    /// What happens from now on.
    pub async fn happenings(&self) -> Result<Happenings> {
        match self {
            Self::Here(tier) => Ok(Happenings::Here(tier.events())),
            Self::There(config, _) => {
                let mut control = held(config).await?;
                control.order(&Order::Events {}).await?;
                Ok(Happenings::There(control))
            }
        }
    }

    /// Closes the tier if this command opened it.
    pub async fn close(self) -> Result<()> {
        match self {
            Self::Here(tier) => tier.close().await,
            Self::There(..) => Ok(()),
        }
    }
}

/// The events of a tier, here or there.
pub enum Happenings {
    /// Opened by this command.
    Here(Events),
    /// Held by another process.
    There(Control),
}

impl Happenings {
    /// The next event, as [`Event::to_json`](mainstay::Event::to_json) says it; `None` once the tier is closed.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        match self {
            Self::Here(events) => Ok(events.next().await.map(|event| event.to_json())),
            Self::There(control) => control.next().await,
        }
    }
}

/// The process that holds the tier.
pub async fn held(config: &Config) -> Result<Control> {
    Control::connect(config).await?.ok_or_else(|| {
        let text = "no process holds this tier, and an order lasts no longer than the process that is told";
        Error::new(ErrorKind::Unavailable, text)
    })
}
