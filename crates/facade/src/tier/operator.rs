//! What an operator may order: who serves first, and who serves at all.
//!
//! Orders last as long as the process; a tier that is opened anew goes by what its members say.

use mainstay_core::{Error, ErrorKind, Result};

use crate::tier::Tier;
use crate::tier::member::{Member, MemberState};

/// How a quarantined member comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// From its own position, as after a restart.
    Resume,
    /// Loaded anew from another member: whatever it holds goes.
    Reload,
}

impl Tier {
    /// Lets this member serve first, whatever the order of the tier, until [`failback`](Self::failback) or the end of
    /// the process. While it is not well, the tier goes by its order.
    ///
    /// # Errors
    /// `Invalid` with the members' names if there is none of this name, `Unavailable` if it is not live.
    pub fn failover(&self, to: &str) -> Result<()> {
        let to = self.live_member(to)?;
        to.restore();
        self.choose(Some(to));
        Ok(())
    }

    /// Lets a member that has come back serve first without waiting any longer, and the tier go by its order again if
    /// [`failover`](Self::failover) chose another member.
    ///
    /// # Errors
    /// As [`failover`](Self::failover).
    pub fn failback(&self, member: &str) -> Result<()> {
        self.live_member(member)?.restore();
        self.choose(None);
        Ok(())
    }

    /// Takes a member out of service until [`release`](Self::release): it neither answers nor applies writes. The log
    /// keeps what it misses while it is not nearly full.
    ///
    /// # Errors
    /// `Invalid` with the members' names if there is none of this name, `Unavailable` if no other member is live.
    pub fn quarantine(&self, member: &str, reason: &str) -> Result<()> {
        let shared = self.shared();
        let member = &shared.members[shared.member_index(member)?];
        if !shared.members.iter().any(|m| m.name() != member.name() && m.state() == MemberState::Live) {
            let text = "no other member is live, so that nobody would serve";
            return Err(Error::new(ErrorKind::Unavailable, text).with_member(member.name().as_str()));
        }
        member.order_out(reason);
        Ok(())
    }

    /// Lets a quarantined member come back.
    ///
    /// # Errors
    /// `Invalid` with the members' names if there is none of this name, or if it is not quarantined.
    pub fn release(&self, member: &str, how: Release) -> Result<()> {
        let shared = self.shared();
        shared.members[shared.member_index(member)?].release(how == Release::Reload)
    }

    fn live_member(&self, name: &str) -> Result<&Member> {
        let shared = self.shared();
        let member = &shared.members[shared.member_index(name)?];
        match member.state() {
            MemberState::Live => Ok(member),
            state => Err(Error::new(ErrorKind::Unavailable, format!("the member is {state}, not live"))
                .with_member(member.name().as_str())),
        }
    }

    fn choose(&self, chosen: Option<&Member>) {
        for member in &*self.shared().members {
            member.choose(chosen.is_some_and(|chosen| chosen.name() == member.name()));
        }
    }
}

#[cfg(test)]
#[cfg(feature = "memory")]
mod tests {
    use std::time::Duration;

    use mainstay_core::faulty::Fault;
    use mainstay_core::{Fields, Operation, SearchQuery};

    use super::*;
    use crate::tier::Event;
    use crate::tier::tests::{MINUTE, Pair, assert_equal_members, docs, ids_of, pair, point};

    async fn served_by(tier: &Tier) -> String {
        let answer = tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap();
        answer.served_by.as_str().to_owned()
    }

    async fn next_failover(events: &mut crate::tier::Events) -> Event {
        loop {
            match events.next().await.unwrap() {
                Event::State { .. } => {}
                event => return event,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_chosen_member_serves_first_until_failback() {
        let Pair { tier, standby, .. } = pair().await;
        tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
        tier.wait_caught_up(MINUTE).await.unwrap();
        let mut events = tier.events();
        tier.failover("secondary").unwrap();
        assert_eq!(served_by(&tier).await, "secondary");
        assert!(matches!(next_failover(&mut events).await, Event::Failover { .. }));
        assert!(tier.status().members[1].chosen);
        // One that fails while it is chosen does not take the tier with it.
        standby.set_down(true);
        assert_eq!(served_by(&tier).await, "primary");
        standby.set_down(false);
        tokio::time::sleep(10 * MINUTE).await;
        assert_eq!(served_by(&tier).await, "secondary");
        tier.failback("primary").unwrap();
        assert_eq!(served_by(&tier).await, "primary");
        for order in [tier.failover("elsewhere"), tier.failback("elsewhere")] {
            assert_eq!(order.unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_taken_out_of_service_neither_answers_nor_applies_until_it_is_released() {
        let Pair { tier, .. } = pair().await;
        tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
        tier.wait_caught_up(MINUTE).await.unwrap();
        tier.quarantine("primary", "its disk is being changed").unwrap();
        let before = tier.status().members[0].cursor;
        for id in 2..20 {
            tier.upsert(&docs(), vec![point(id, 0.5)]).await.unwrap();
            assert_eq!(served_by(&tier).await, "secondary");
        }
        tokio::time::sleep(MINUTE).await;
        let status = tier.status().members[0].clone();
        assert_eq!((status.state, status.cursor), (MemberState::Quarantined, before));
        assert!(status.last_error.unwrap().contains("its disk is being changed"));
        assert_eq!(tier.quarantine("secondary", "too").unwrap_err().kind(), ErrorKind::Unavailable);
        tier.release("primary", Release::Resume).unwrap();
        assert_equal_members(&tier, &["primary", "secondary"]).await;
        assert_eq!(tier.release("primary", Release::Resume).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(ids_of(&tier, "primary").await.len(), 19);
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_stands_while_the_member_is_in_the_middle_of_a_run() {
        let Pair { tier, primary, .. } = pair().await;
        tier.wait_caught_up(MINUTE).await.unwrap();
        primary.fail_next_of(Operation::Apply, 1, Fault::Delay(Duration::from_secs(3)));
        let (writer, name) = (tier.clone(), docs());
        let write = tokio::spawn(async move { writer.upsert(&name, vec![point(1, 0.5)]).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        tier.quarantine("primary", "now").unwrap();
        write.await.unwrap().unwrap();
        tokio::time::sleep(MINUTE).await;
        assert_eq!(tier.status().members[0].state, MemberState::Quarantined);
        tier.release("primary", Release::Resume).unwrap();
        assert_equal_members(&tier, &["primary", "secondary"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_refused_an_entry_is_loaded_anew_while_writes_go_on() {
        let Pair { tier, primary, .. } = pair().await;
        tier.wait_caught_up(MINUTE).await.unwrap();
        primary.fail_next_of(Operation::Apply, 1, Fault::Before(ErrorKind::Rejected));
        tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
        tokio::time::sleep(MINUTE).await;
        assert_eq!(tier.status().members[0].state, MemberState::Quarantined);
        let (writer, name) = (tier.clone(), docs());
        let writes = tokio::spawn(async move {
            for id in 2..200 {
                writer.upsert(&name, vec![point(id, 0.5)]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let mut events = tier.events();
        tier.release("primary", Release::Reload).unwrap();
        let loaded = async {
            while let Some(event) = events.next().await {
                if matches!(event, Event::State { to: MemberState::Bootstrapping, .. }) {
                    return;
                }
            }
        };
        tokio::time::timeout(MINUTE, loaded).await.unwrap();
        writes.await.unwrap();
        assert_equal_members(&tier, &["primary", "secondary"]).await;
        let found = tier.reader().from_member("primary").unwrap();
        assert_eq!(found.get(&docs(), &[1.into()], &Fields::NONE).await.unwrap().value.len(), 1);
    }
}
