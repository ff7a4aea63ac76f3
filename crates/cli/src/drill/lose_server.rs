//! Everything that may happen to the server of a member.

use std::path::Path;
use std::time::{Duration, Instant};

use mainstay::config::{BackendConfig, QdrantPlace};
use mainstay::{Config, Error, Result, Tier};

use super::lose_member::Round;
use super::proxy::{Proxy, Weather};
use super::server::ServerProcess;

/// A fault of a server or of the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// It is killed, and started again.
    Kill,
    /// It is killed, its storage is emptied, and it is started again.
    Wipe,
    /// It stands still for a while.
    Freeze,
    /// Nothing comes through to it for a while.
    DropPackets,
    /// Its connections are cut, and new ones at once, for a while.
    CutConnections,
}

impl Fault {
    /// All of them, in the order of a drill.
    pub const ALL: [Self; 5] =
        [Self::Kill, Self::Wipe, Self::Freeze, Self::DropPackets, Self::CutConnections];

    /// What happens, in a few words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill and restart",
            Self::Wipe => "kill, wipe and restart",
            Self::Freeze => "freeze and thaw",
            Self::DropPackets => "drop packets",
            Self::CutConnections => "cut connections",
        }
    }
}

/// A member's server with a proxy before it.
pub struct LoseServer {
    server: ServerProcess,
    proxy: Proxy,
    outage: Duration,
    patience: Duration,
}

impl LoseServer {
    /// Starts the server of a Qdrant member with this command, and puts a proxy before it: the config that comes
    /// back leads through the proxy.
    ///
    /// # Errors
    /// `Invalid` if the member has no server on this machine, and as
    /// [`ServerProcess::start`](super::ServerProcess::start).
    pub async fn start(
        config: &Config,
        member: &str,
        command: Vec<String>,
        storage: &Path,
    ) -> Result<(Self, Config)> {
        let mut config = config.clone();
        let Some(found) = config.members.get_mut(member) else {
            return Err(Error::invalid(format!(
                "there is no member `{member}`; the tier has {}",
                config.tier.members.join(", ")
            )));
        };
        let BackendConfig::Qdrant(qdrant) = &mut found.backend else {
            return Err(Error::invalid(format!("member `{member}` has no server; drill one with a url")));
        };
        let QdrantPlace::Server(urls) = &mut qdrant.place else {
            return Err(Error::invalid(format!("member `{member}` is a directory; drill one with a url")));
        };
        let address = match &urls[..] {
            [url] => url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').to_owned()),
            _ => None,
        };
        let Some(address) = address else {
            return Err(Error::invalid(format!(
                "member `{member}` must have one url, and it must start with http://, for a proxy to stand before it"
            )));
        };
        let server = ServerProcess::start(command, &address, storage).await?;
        let proxy = Proxy::start(&address).await?;
        *urls = vec![format!("http://{}", proxy.address())];
        let drill =
            Self { server, proxy, outage: Duration::from_secs(5), patience: Duration::from_secs(120) };
        Ok((drill, config))
    }

    /// The same with another time that an outage lasts (5 s by default), and that catching up may take (2 minutes
    /// by default).
    #[must_use]
    pub fn lasting(mut self, outage: Duration, patience: Duration) -> Self {
        (self.outage, self.patience) = (outage, patience);
        self
    }

    /// One round: the fault, and what ends it, and waiting until every member has caught up.
    ///
    /// # Errors
    /// If the server does not come back, and `Timeout` if a member does not catch up.
    pub async fn round(&mut self, tier: &Tier, fault: Fault) -> Result<Round> {
        let lost_at = Instant::now();
        match fault {
            Fault::Kill | Fault::Wipe => self.server.kill().await?,
            Fault::Freeze => self.server.freeze()?,
            Fault::DropPackets => self.proxy.set(Weather::Dropping),
            Fault::CutConnections => self.proxy.set(Weather::Cutting),
        }
        tokio::time::sleep(self.outage).await;
        match fault {
            Fault::Kill => self.server.restart().await?,
            Fault::Wipe => {
                self.server.wipe()?;
                self.server.restart().await?;
            }
            Fault::Freeze => self.server.thaw()?,
            Fault::DropPackets | Fault::CutConnections => self.proxy.set(Weather::Fair),
        }
        let back_at = Instant::now();
        tier.wait_caught_up(self.patience).await?;
        let catch_up = back_at.elapsed();
        super::serve_again(tier)?;
        Ok(Round { lost_at, back_at, catch_up })
    }
}
