//! Which member is asked, and in what order: plain decisions over a view of the members.

use mainstay_core::Lsn;

use crate::answer::ServiceLevel;
use crate::sabotage::{self, Bug};
use crate::tier::member::MemberState;

/// What a decision knows of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Its state.
    pub state: MemberState,
    /// Everything up to this LSN is in it.
    pub cursor: Lsn,
    /// Whether what it holds is known: not if it was never asked where it is, and not after a load that failed.
    pub whole: bool,
    /// Whether its breaker refuses calls.
    pub breaker_open: bool,
    /// Whether it may serve first: it never failed, or has been back for long enough.
    pub trusted: bool,
    /// Whether an operator chose it to serve first.
    pub chosen: bool,
    /// Whether it starts empty after its process ended.
    pub volatile: bool,
    /// Whether it let points go for want of room, so that it never counts as one that has caught up.
    pub partial: bool,
}

impl View {
    /// Whether reads may be served by it without saying that they are behind.
    fn is_well(&self) -> bool {
        self.answers() && !self.partial
    }

    /// Whether it follows the log and lets calls through.
    fn answers(&self) -> bool {
        self.state == MemberState::Live && !self.breaker_open
    }

    /// Whether it also holds every write that somebody was told is done.
    fn is_fresh(&self, acked: Lsn) -> bool {
        self.is_well() && self.cursor >= acked
    }
}

/// The active member: of those that are live, whose breaker lets calls through and that may serve first, the one that an
/// operator chose, or else the first; for want of one, the first that is live, a partial one last: what was written last is
/// what it has. It serves reads first, once it holds what was acked before it became active, and its cursor acks writes.
pub fn active(members: &[View]) -> Option<usize> {
    let first = |fits: fn(&View) -> bool| members.iter().position(fits);
    first(|view| view.is_well() && view.trusted && view.chosen)
        .or_else(|| first(|view| view.is_well() && view.trusted))
        .or_else(|| first(View::is_well))
        .or_else(|| first(View::answers))
}

/// Whether an entry counts as written when it need be only in the active member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acked {
    /// Not yet.
    No,
    /// It does, but a member that is to serve first again soon does not have it: a writer who waits a moment for it
    /// keeps to its pace, so that it does not fall behind the others before it serves.
    Soon,
    /// It does.
    Yes,
}

/// Whether the active member has an entry.
pub fn acked(members: &[View], lsn: Lsn) -> Acked {
    match active(members) {
        Some(active) if members[active].cursor >= lsn => {
            let late = |view: &View| view.is_well() && view.cursor < lsn;
            if members[..active].iter().any(late) { Acked::Soon } else { Acked::Yes }
        }
        _ => Acked::No,
    }
}

/// The members to ask for a read, in order: well ones that hold every acked write, the chosen one first and then by
/// preference, then those that are behind or ailing, the freshest first, because an answer that says how old it is beats
/// an error, and partial ones at the very end, because what they do not have looks as if it were not there. A member
/// that is behind `at_least`, is being loaded or is quarantined is not asked; one that is down has
/// no cursor to trust and is asked only by who wants no certain LSN.
/// `rank` puts those that may serve alike in order, the lowest first; equal ones stay in the order of the tier.
pub fn read_order<R: Ord>(
    members: &[View],
    at_least: Lsn,
    acked: Lsn,
    rank: impl Fn(usize) -> R,
) -> Vec<usize> {
    // Before the first entry there is no collection; a store that says it is there may be half loaded.
    let can_answer = |view: &View| match view.state {
        _ if view.cursor == Lsn::ZERO && !sabotage::on(Bug::HalfLoadedAnswersWhenDown) => false,
        MemberState::Live | MemberState::CatchingUp => view.cursor >= at_least,
        MemberState::Down => {
            at_least == Lsn::ZERO && (view.whole || sabotage::on(Bug::HalfLoadedAnswersWhenDown))
        }
        MemberState::Bootstrapping => sabotage::on(Bug::HalfLoadedServes),
        MemberState::Quarantined => sabotage::on(Bug::QuarantinedServes),
    };
    let (mut order, mut last_resort): (Vec<usize>, Vec<usize>) =
        (0..members.len()).filter(|i| can_answer(&members[*i])).partition(|i| members[*i].is_fresh(acked));
    order.sort_by_key(|i| (!members[*i].trusted, !members[*i].chosen, rank(*i)));
    last_resort.sort_by_key(|i| {
        let view = &members[*i];
        (view.partial, !view.answers(), view.breaker_open, std::cmp::Reverse(view.cursor))
    });
    order.append(&mut last_resort);
    order
}

/// The service level when this member serves.
pub fn level(members: &[View], serving: usize) -> ServiceLevel {
    if serving == 0 && members.first().is_none_or(|view| !view.partial) {
        return ServiceLevel::Normal;
    }
    let durable_is_well = members.iter().any(|view| !view.volatile && view.is_well());
    match members.get(serving) {
        Some(view) if view.volatile && !durable_is_well => ServiceLevel::MemoryOnly,
        Some(_) => ServiceLevel::Standby,
        None => ServiceLevel::Unavailable,
    }
}

/// Where another member's state is best read from to load member `target`: among whole ones at or after
/// `first` (so that the log continues from there), well ones before others, then the one furthest on.
pub fn bootstrap_source(members: &[View], target: usize, first: Lsn) -> Option<usize> {
    (0..members.len())
        .filter(|i| *i != target && may_be_source(&members[*i], first))
        .max_by_key(|i| (members[*i].is_well(), members[*i].cursor, std::cmp::Reverse(*i)))
}

/// Whether another member can be loaded from this one if the log continues from `first`.
pub fn may_be_source(member: &View, first: Lsn) -> bool {
    matches!(member.state, MemberState::Live | MemberState::CatchingUp)
        && member.cursor >= first
        && !member.partial
}

#[cfg(test)]
mod tests {
    use super::*;
    use MemberState::{Bootstrapping, CatchingUp, Down, Live, Quarantined};

    fn view(state: MemberState, cursor: u64) -> View {
        View {
            state,
            cursor: Lsn(cursor),
            whole: true,
            breaker_open: false,
            trusted: true,
            chosen: false,
            volatile: false,
            partial: false,
        }
    }

    #[test]
    fn live_members_are_asked_by_preference_then_the_freshest() {
        let members = [view(Down, 5), view(CatchingUp, 7), view(Live, 9), view(Live, 10)];
        assert_eq!(read_order(&members, Lsn(0), Lsn(0), |_| 0), [2, 3, 1, 0]);
        assert_eq!(active(&members), Some(2));
    }

    #[test]
    fn a_member_behind_the_wanted_lsn_is_not_asked() {
        let members = [view(Live, 5), view(Live, 9)];
        assert_eq!(read_order(&members, Lsn(6), Lsn(0), |_| 0), [1]);
    }

    #[test]
    fn a_member_behind_an_acked_write_is_asked_after_one_that_has_it() {
        let members = [view(Live, 8), view(Live, 9), view(CatchingUp, 9)];
        assert_eq!(read_order(&members, Lsn(0), Lsn(8), |_| 0), [0, 1, 2]);
        assert_eq!(read_order(&members, Lsn(0), Lsn(9), |_| 0), [1, 0, 2]);
        assert_eq!(read_order(&members, Lsn(0), Lsn(10), |_| 0), [1, 0, 2]);
        assert_eq!(active(&members), Some(0), "its cursor acks writes, so that writers wait for it");
    }

    #[test]
    fn the_rank_chooses_among_those_that_hold_every_acked_write() {
        let members = [view(Live, 9), view(Live, 9), view(Live, 8), view(CatchingUp, 9)];
        let ms = [5, 1, 0, 0];
        assert_eq!(read_order(&members, Lsn(0), Lsn(9), |i| ms[i]), [1, 0, 2, 3]);
    }

    #[test]
    fn a_member_that_has_just_come_back_serves_after_the_others_and_slows_writers_a_little() {
        let mut members = [view(Live, 9), view(Live, 9), view(CatchingUp, 9)];
        members[0].trusted = false;
        assert_eq!(active(&members), Some(1));
        assert_eq!(read_order(&members, Lsn(0), Lsn(9), |_| 0), [1, 0, 2]);
        assert_eq!(acked(&members, Lsn(9)), Acked::Yes);
        members[1].cursor = Lsn(10);
        assert_eq!(acked(&members, Lsn(10)), Acked::Soon);
        assert_eq!(acked(&members, Lsn(11)), Acked::No);
        members[1].state = Down;
        assert_eq!((active(&members), acked(&members, Lsn(9))), (Some(0), Acked::Yes), "better than nobody");
    }

    #[test]
    fn an_open_breaker_moves_a_member_to_the_end() {
        let mut members = [view(Live, 9), view(Live, 9), view(CatchingUp, 3)];
        members[0].breaker_open = true;
        assert_eq!(read_order(&members, Lsn(0), Lsn(0), |_| 0), [1, 2, 0]);
        assert_eq!(active(&members), Some(1));
    }

    #[test]
    fn half_loaded_and_quarantined_members_never_answer() {
        let members = [view(Bootstrapping, 0), view(Quarantined, 9)];
        assert!(read_order(&members, Lsn(0), Lsn(0), |_| 0).is_empty());
        assert_eq!(active(&members), None);
        assert_eq!(bootstrap_source(&members, 0, Lsn(0)), None);
    }

    #[test]
    fn a_member_whose_load_failed_does_not_answer_although_it_is_only_down() {
        let mut members = [view(Down, 0), view(Down, 9)];
        members[0].whole = false;
        assert_eq!(read_order(&members, Lsn(0), Lsn(9), |_| 0), [1]);
    }

    #[test]
    fn the_level_says_who_serves() {
        let mut members = [view(Live, 1), view(Live, 1), view(Live, 1)];
        members[2].volatile = true;
        assert_eq!(level(&members, 0), ServiceLevel::Normal);
        assert_eq!(level(&members, 2), ServiceLevel::Standby);
        members[0].state = Down;
        members[1].state = Down;
        assert_eq!(level(&members, 2), ServiceLevel::MemoryOnly);
        assert_eq!(level(&members, 1), ServiceLevel::Standby);
    }

    #[test]
    fn a_partial_member_is_asked_when_nobody_else_is_left_and_is_nobodys_source() {
        let mut members = [view(Live, 9), view(CatchingUp, 3), view(Live, 9)];
        (members[0].partial, members[0].volatile) = (true, true);
        // Not even for being the fastest.
        assert_eq!(read_order(&members, Lsn(0), Lsn(9), |i| i), [2, 1, 0]);
        assert_eq!((active(&members), bootstrap_source(&members, 1, Lsn(4))), (Some(2), Some(2)));
        members[2].state = Down;
        assert_eq!(read_order(&members, Lsn(0), Lsn(9), |i| i), [2, 1, 0]);
        assert_eq!(bootstrap_source(&members, 1, Lsn(4)), None);
        assert_eq!(active(&members), Some(0), "its cursor acks writes, for want of another");
        assert_eq!(level(&members, 0), ServiceLevel::MemoryOnly, "it is not normal that a part serves");
    }

    #[test]
    fn a_member_is_loaded_from_the_one_that_is_furthest_on_and_not_behind_the_log() {
        let members = [view(Bootstrapping, 0), view(Live, 4), view(Live, 9)];
        assert_eq!(bootstrap_source(&members, 0, Lsn(5)), Some(2));
        assert_eq!(bootstrap_source(&members, 0, Lsn(10)), None);
    }
}
